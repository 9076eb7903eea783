"""examples/avbt.py runs, and avel's encoder, projector, loss, LARS and schedule give its numbers."""

import re

import pytest
import torch
from torch import nn

from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
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


def test_avels_loss_is_eq_1_and_2_of_the_page() -> None:
    random = torch.Generator().manual_seed(0)
    gradients = []
    for ours in (True, False):
        Z_a, Z_v = (
            torch.randn(B, T, 12, generator=random.manual_seed(seed)).requires_grad_() for seed in (0, 1)
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
    random = torch.Generator().manual_seed(0)
    cnn_a = torch.randn(B, T, encoder.audio.width, generator=random)
    cnn_v = torch.randn(B, T, encoder.visual.width, generator=random)
    given = page.Encoder(nn.Flatten(), nn.Identity(), d_a=encoder.audio.width)  # vectors in CNNs' place
    given.load_state_dict(
        {name: value for name, value in encoder.temporal.state_dict().items() if name in given.state_dict()}
    )
    torch.testing.assert_close(encoder.temporal(cnn_a, cnn_v), given(cnn_a, cnn_v))


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
    lars = page.LARS({w: page.LR_SCALE if name.startswith(slow) else 1.0 for name, w in copies.items()})
    optimizer = make_optimizer(projected, config)
    random = torch.Generator().manual_seed(0)
    for step in range(epochs * epoch_steps):
        for name, w in projected.named_parameters():
            w.grad = torch.randn(w.shape, generator=random)
            copies[name].grad = w.grad.clone()
        set_lrs(optimizer, lr_fraction(step, epoch_steps, config))
        optimizer.step()
        lars.step(page.lr_fraction(step, epoch_steps, epochs, warmup))
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
    frames = numbers[..., None, None, None].expand(-1, -1, -1, 3, 8, 8)
    torch.manual_seed(0)
    draws = [page.preprocess(frames, nn.Identity())[:, :, 0, 0, 0].flatten().tolist() for _ in range(40)]
    assert all(frame // 4 == segment for drawn in draws for segment, frame in enumerate(drawn))
    assert {frame for drawn in draws for frame in drawn} == set(range(24))
