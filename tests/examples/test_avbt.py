"""examples/avbt.py runs, and avel's augmentation, encoder, projector, loss and LARS give its numbers."""

import ast
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avel.pipeline.config import AugmentConfig, PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining import augment
from avel.pipeline.pretraining.avbt import avbt_loss, correlation
from avel.pipeline.pretraining.projector import ProjectedEncoder, make_projector, projector_widths
from avel.pipeline.pretraining.schedule import lr_fraction, make_optimizer, peak_lrs, set_lrs
from examples import avbt as page
from tests.pipeline.configs import pretrain_config

B, T = 3, 5


def test_the_page_runs_and_the_loss_falls(capsys: pytest.CaptureFixture[str]) -> None:
    page.main(epochs=5)
    losses = [float(loss) for loss in re.findall(r"loss +([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 10
    assert losses[-1] < 0.6 * losses[0]


def test_the_page_needs_nothing_but_torch() -> None:
    imported = [
        name.partition(".")[0]
        for node in ast.walk(ast.parse(Path(page.__file__).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    ]
    assert set(imported) - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.3, 2.0])
@pytest.mark.parametrize("box", [(0, 0, 64, 64), (3, 10, 40, 52), (50, 1, 13, 9)])
def test_avel_crops_and_blurs_as_the_page_does(box: tuple[int, int, int, int], sigma: float) -> None:
    frames = torch.randint(0, 256, (T, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    draw = augment.Draw(*(pixels / 64 for pixels in box), sigma_pixels=sigma)
    found = augment.augment(frames[None].to(torch.uint8), [draw], 24)[0]
    torch.testing.assert_close(found, page.augment(frames / 255, box, sigma, 24), atol=1e-4, rtol=0)


def test_avel_draws_crops_and_blurs_as_the_page_does() -> None:
    assert (AugmentConfig().crop_scale, augment.ASPECT) == (page.AREA, page.ASPECT)
    assert (augment.BLUR_PROBABILITY, augment.SIGMA_PIXELS) == (page.BLUR_PROBABILITY, page.SIGMA)
    generator = np.random.default_rng(0)
    ours = np.array([augment.random_box(generator, page.AREA) for _ in range(4000)])
    random.seed(0)
    given = np.array([page.random_box(1000, 1000) for _ in range(4000)]) / 1000
    np.testing.assert_allclose(
        np.quantile(given, [0.1, 0.5, 0.9], 0), np.quantile(ours, [0.1, 0.5, 0.9], 0), atol=0.03
    )


def test_avels_loss_is_eq_1_and_2_of_the_page() -> None:
    generator = torch.Generator()
    gradients = []
    for ours in (True, False):
        Z_a, Z_v = (
            torch.randn(B, T, 12, generator=generator.manual_seed(seed)).requires_grad_() for seed in (0, 1)
        )
        C = correlation(Z_a, Z_v) if ours else page.cross_correlation(Z_a, Z_v)
        loss = avbt_loss(Z_a, Z_v, PretrainConfig().objective.lambd).total if ours else page.avbt_loss(C)
        gradients.append((C, loss, *torch.autograd.grad(loss, (Z_a, Z_v))))
    torch.testing.assert_close(*gradients)


def test_avels_projector_is_that_of_the_page() -> None:
    given = page.projector()
    project = make_projector(256, projector_widths(PretrainConfig().objective.projector))
    project.load_state_dict(given.state_dict())
    features = torch.randn(B * T, 256, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(project(features), given(features))


def test_avels_bi_lstms_are_those_of_the_page() -> None:
    config = pretrain_config(
        visual_backbone="resnet50", audio_backbone="tiny", visual_weights="random", audio_weights="random"
    )
    encoder = build_encoder(config)
    generator = torch.Generator().manual_seed(0)
    cnn_a = torch.randn(B, T, encoder.audio.width, generator=generator)
    cnn_v = torch.randn(B, T, encoder.visual.width, generator=generator)
    # Vectors in the place of what the CNNs get
    encoder_a = page.Encoder(nn.Identity(), encoder.audio.width)
    encoder_v = page.Encoder(nn.Linear(encoder.visual.width, 512), 512)
    encoder_a.lstm.load_state_dict(encoder.temporal.audio_lstm.state_dict())
    encoder_v.lstm.load_state_dict(encoder.temporal.visual_lstm.state_dict())
    encoder_v.cnn.load_state_dict(encoder.temporal.visual_linear.state_dict())
    torch.testing.assert_close(encoder.temporal(cnn_a, cnn_v), (encoder_a(cnn_a), encoder_v(cnn_v)))


def test_avels_lars_and_schedule_move_weights_as_the_page_does() -> None:
    epochs, warmup, epoch_steps = 4, 1, 3
    config = pretrain_config(
        visual_backbone="tiny",
        audio_backbone="tiny",
        visual_weights="random",
        audio_weights="random",
        projector="8-8-8",
        epochs=epochs,
        warmup_epochs=warmup,
    )
    encoder = build_encoder(config)
    encoder.visual.pretrained = encoder.audio.pretrained = True  # as if: the CNNs take the small rate
    projected = ProjectedEncoder(encoder, config)
    start = {name: w.detach().clone() for name, w in projected.named_parameters()}
    copies = {name: nn.Parameter(w.clone()) for name, w in start.items()}
    slow = ("encoder.visual.", "encoder.audio.")
    momenta: dict[float, dict[nn.Parameter, torch.Tensor]] = {page.LR_SCALE: {}, 1.0: {}}
    for name, w in copies.items():
        momenta[page.LR_SCALE if name.startswith(slow) else 1.0][w] = torch.zeros_like(w)
    optimizer = make_optimizer(projected, config)
    generator = torch.Generator().manual_seed(0)
    for step in range(epochs * epoch_steps):
        for name, w in projected.named_parameters():
            w.grad = torch.randn(w.shape, generator=generator)
            copies[name].grad = w.grad.clone()
        set_lrs(optimizer, lr_fraction(step, epoch_steps, config))
        optimizer.step()
        for lr_scale, of_weights in momenta.items():
            page.lars(of_weights, lr_scale, page.lr_fraction(step, epoch_steps, epochs, warmup))
    moved = {name: w.detach() - start[name] for name, w in projected.named_parameters()}
    assert all(step.abs().max() > 0 for step in moved.values())
    torch.testing.assert_close(
        moved, {name: w.detach() - start[name] for name, w in copies.items()}, rtol=1e-3, atol=1e-7
    )


def test_avels_defaults_are_the_numbers_of_the_page() -> None:
    config = PretrainConfig()
    assert (config.epochs, config.optimizer.warmup_epochs, config.batch_size) == (
        page.EPOCHS,
        page.WARMUP_EPOCHS,
        page.BATCH,
    )
    assert peak_lrs(config) == (page.LR_WEIGHTS / 2, page.LR_BIASES / 2)
    assert (config.objective.lambd, config.optimizer.lr_scale_backbone) == (page.LAMBDA, page.LR_SCALE)
    given = config.optimizer
    lars = (given.momentum, given.trust, given.weight_decay)
    assert lars == (page.MOMENTUM, page.TRUST, page.WEIGHT_DECAY)
    assert [lr_fraction(step, 26, config) for step in range(2600)] == pytest.approx(
        [page.lr_fraction(step, 26) for step in range(2600)]
    )


def test_the_page_draws_one_frame_of_each_segment() -> None:
    numbers = torch.arange(2 * 3 * 4).reshape(2, 3, 4)  # of the frames of 2 clips, 3 segments, 4 frames each
    frames = (numbers / 24)[..., None, None, None].expand(-1, -1, -1, 3, 8, 8)
    torch.manual_seed(0)
    random.seed(0)
    shown = [page.preprocess(frames, size=8)[:, :, 0, 4, 4].flatten() for _ in range(40)]
    draws = [(24 * each).round().int().tolist() for each in shown]
    assert all(frame // 4 == segment for drawn in draws for segment, frame in enumerate(drawn))
    assert {frame for drawn in draws for frame in drawn} == set(range(24))
