"""The objective of AV-BT against Eq. 1-2 in loops, against Algorithm 1 to the letter, and over processes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avel.errors import ConfigError
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining import parallel
from avel.pipeline.pretraining.avbt import avbt_loss, correlation
from avel.pipeline.pretraining.monitor import step_values
from avel.pipeline.pretraining.parallel import (
    GlobalBatchNorm,
    process_group,
    synchronise_batch_norms,
    world_size,
)
from avel.pipeline.pretraining.projector import ProjectedEncoder, projector_widths
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.training import Trainer, move_to_device
from tests.pipeline.configs import pretrain_config
from tests.pipeline.pretraining.two_ranks import run_two_ranks

CPU = torch.device("cpu")
LAMBDA = 5e-3
CASES: tuple[dict[str, object], ...] = (
    {"correlate": "clip"},
    {"correlate": "batch"},
    {"backbone_batchnorm": "frozen", "clips_at_once": 2},
)
"""Settings under which two processes are compared with one."""


def embeddings(clips: int = 4, segments: int = 5, features: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (clips, segments, features)
    z_a = torch.randn(shape, generator=generator, dtype=torch.float64)
    return z_a, 0.5 * z_a + torch.randn(shape, generator=generator, dtype=torch.float64) + 3


def correlation_in_loops(z_a: np.ndarray, z_v: np.ndarray) -> np.ndarray:
    """Eq. 1 element by element, centred over time as in Algorithm 1, then the mean over clips."""
    clips, segments, features = z_a.shape
    mean = np.zeros((features, features))
    for b in range(clips):
        for i in range(features):
            for j in range(features):
                mean_a = sum(z_a[b, t, i] for t in range(segments)) / segments
                mean_v = sum(z_v[b, t, j] for t in range(segments)) / segments
                product = sum((z_a[b, t, i] - mean_a) * (z_v[b, t, j] - mean_v) for t in range(segments))
                square_a = sum((z_a[b, t, i] - mean_a) ** 2 for t in range(segments))
                square_v = sum((z_v[b, t, j] - mean_v) ** 2 for t in range(segments))
                mean[i, j] += product / (np.sqrt(square_a) * np.sqrt(square_v)) / clips
    return mean


def loss_in_loops(z_a: np.ndarray, z_v: np.ndarray) -> float:
    """Eq. 2 element by element."""
    c = correlation_in_loops(z_a, z_v)
    total = 0.0
    for i in range(len(c)):
        for j in range(len(c)):
            total += (1 - c[i, i]) ** 2 if i == j else LAMBDA * c[i, j] ** 2
    return total


def algorithm_1(z_a: torch.Tensor, z_v: torch.Tensor) -> torch.Tensor:
    """Algorithm 1 line by line with one matrix a clip; unbiased deviations, hence T - 1 under the product."""
    clips, segments, features = z_a.shape
    z_a_norm = (z_a - z_a.mean(1, keepdim=True)) / z_a.std(1, keepdim=True)
    z_v_norm = (z_v - z_v.mean(1, keepdim=True)) / z_v.std(1, keepdim=True)
    c = torch.bmm(z_a_norm.transpose(1, 2), z_v_norm) / (segments - 1)
    c = c.sum(0) / clips
    diff = (c - torch.eye(features, dtype=c.dtype)).pow(2)
    weights = torch.full_like(diff, LAMBDA)
    weights.fill_diagonal_(1)
    return (diff * weights).sum()


def test_the_loss_is_equation_2() -> None:
    z_a, z_v = embeddings()
    loss = avbt_loss(z_a, z_v, LAMBDA)
    np.testing.assert_allclose(loss.correlation, correlation_in_loops(z_a.numpy(), z_v.numpy()), rtol=1e-7)
    np.testing.assert_allclose(loss.total, loss_in_loops(z_a.numpy(), z_v.numpy()), rtol=1e-7)
    torch.testing.assert_close(loss.total, loss.on_diagonal + LAMBDA * loss.off_diagonal)


def test_loss_and_gradients_are_algorithm_1s() -> None:
    z_a, z_v = (z.requires_grad_() for z in embeddings())
    ours = torch.autograd.grad(avbt_loss(z_a, z_v, LAMBDA).total, (z_a, z_v))
    theirs = torch.autograd.grad(algorithm_1(z_a, z_v), (z_a, z_v))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("correlate", ["clip", "batch"])
def test_gradients_are_the_slopes_of_the_loss(correlate: str) -> None:
    z_a, z_v = embeddings(3, 4, 3)
    assert torch.autograd.gradcheck(
        lambda a, v: avbt_loss(a, v, LAMBDA, correlate).total, (z_a.requires_grad_(), z_v.requires_grad_())
    )


def test_over_the_batch_it_is_barlow_twins() -> None:
    z_a, z_v = embeddings()
    flat_a, flat_v = z_a.flatten(0, 1).numpy(), z_v.flatten(0, 1).numpy()
    features = flat_a.shape[1]
    expected = np.corrcoef(flat_a.T, flat_v.T)[:features, features:]
    np.testing.assert_allclose(correlation(z_a, z_v, "batch"), expected, rtol=1e-7)


def test_embeddings_that_agree_reach_a_diagonal_of_one() -> None:
    z_a, _ = embeddings()
    torch.testing.assert_close(avbt_loss(z_a, z_a * 3 - 1).on_diagonal.item(), 0.0, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "case",
    ["constant in time", "one clip", "one segment", "zero", "huge"],
    ids=lambda case: case.replace(" ", "-"),
)
@pytest.mark.parametrize("correlate", ["clip", "batch"])
def test_hard_cases_stay_finite(case: str, correlate: str) -> None:
    z_a, z_v = (z.float() for z in embeddings())
    if case == "constant in time":
        z_v = z_v[:, :1].expand_as(z_v)
    elif case == "one clip":
        z_a, z_v = z_a[:1], z_v[:1]
    elif case == "one segment":
        z_a, z_v = z_a[:1, :1], z_v[:1, :1]
    elif case == "zero":
        z_a, z_v = torch.zeros_like(z_a), torch.zeros_like(z_v)
    else:
        z_a, z_v = z_a * 1e8, z_v * 1e8
    z_a, z_v = z_a.clone().requires_grad_(), z_v.clone().requires_grad_()
    loss = avbt_loss(z_a, z_v, LAMBDA, correlate)
    gradients = torch.autograd.grad(loss.total, (z_a, z_v))
    assert all(torch.isfinite(value).all() for value in (loss.total, *gradients))


def test_a_projector_is_barlow_twins() -> None:
    config = small_config(projector="16-24-32", hidden=128)
    projector = ProjectedEncoder(build_encoder(config), config).projector
    layers = [type(layer) for layer in projector]
    assert layers == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [tuple(projector[place].weight.shape) for place in (0, 3, 6)] == [(16, 256), (24, 16), (32, 24)]
    assert all(projector[place].bias is None for place in (0, 3, 6))


@pytest.mark.parametrize("text", ["", "12-", "a-b", "0-4", "12,13"])
def test_other_projector_widths_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="projector"):
        projector_widths(text)


def test_a_shared_projector_has_one_set_of_weights_and_a_separate_one_two() -> None:
    shared = small_twins()
    separate = small_twins(shared_projector=False)
    assert shared.visual_projector is None
    assert separate.visual_projector is not None
    assert separate.visual_projector is not separate.projector


def small_twins(**changes: object) -> ProjectedEncoder:
    config = small_config(**changes)
    return ProjectedEncoder(build_encoder(config), config).double()


def small_config(**changes: object) -> PretrainConfig:
    settings: dict[str, object] = {
        "visual_backbone": "tiny",
        "audio_backbone": "tiny",
        "visual_weights": "random",
        "audio_weights": "random",
        "hidden": 4,
        "projector": "8-12-12",
        "optimizer": "adamw",
        "lr": 0.0,
        "lr_bias": 0.0,
    }
    return pretrain_config(**(settings | changes))


def two_modalities(clips: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(clips, 3, 3, 32, 32, generator=generator, dtype=torch.float64)
    return frames, torch.randn(clips, 3, 96, 64, generator=generator, dtype=torch.float64)


def gradients_of_a_step(part: slice, **changes: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    config = small_config(**changes)
    projected = move_to_device(small_twins(**changes), config, CPU)
    trainer = Trainer(projected, make_optimizer(projected, config), config, CPU)
    trainer.model.train()
    frames, log_mel = two_modalities()
    values = trainer.step(frames[part], log_mel[part])
    found = {name: p.grad for name, p in projected.named_parameters() if p.grad is not None}
    if world_size() > 1:
        shared = [isinstance(part, GlobalBatchNorm) for part in projected.encoder.modules()]
        assert any(shared) == (config.backbone_batchnorm != "frozen"), (
            "what is frozen stays as it is, and folds"
        )
    return values, found | {name: buffer.clone() for name, buffer in projected.named_buffers()}


def test_gradients_in_pieces_are_the_gradients_of_the_whole() -> None:
    found = {}
    for at_once in (0, 2):
        config = small_config(clips_at_once=at_once, backbone_batchnorm="frozen")
        projected = small_twins(backbone_batchnorm="frozen")
        trainer = Trainer(projected, make_optimizer(projected, config), config, CPU)
        trainer.model.train()
        values = trainer.step(*two_modalities())
        found[at_once] = values, {name: p.grad for name, p in projected.named_parameters()}
    assert None not in found[0][1].values()
    torch.testing.assert_close(found[2], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("at_once", [0, 2])
def test_a_step_weighs_redundancy_as_it_is_told_to(at_once: int) -> None:
    values, _ = gradients_of_a_step(
        slice(None), lambd=0.25, clips_at_once=at_once, backbone_batchnorm="frozen"
    )
    total, on_diagonal, off_diagonal = values[:3]
    torch.testing.assert_close(total, on_diagonal + 0.25 * off_diagonal)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cnns_and_projector_run_in_the_number_format_that_is_asked_for(dtype: str) -> None:
    projected = small_twins(dtype=dtype).float()
    frames, log_mel = (part.float() for part in two_modalities(2))
    cnn = projected.cnn(frames, log_mel)
    assert {vectors.dtype for vectors in (*cnn, *projected.embed(*cnn))} == {getattr(torch, dtype)}


def test_pieces_are_refused_where_they_would_change_batch_statistics() -> None:
    projected, config = small_twins(), small_config(clips_at_once=2)
    with pytest.raises(ConfigError, match="batch norms"):
        Trainer(projected, make_optimizer(projected, config), config, CPU)


def test_cnns_without_batch_norms_may_be_taken_in_pieces_whatever_their_weights() -> None:
    config = small_config(audio_backbone="yamnet", clips_at_once=2)
    projected = small_twins(audio_backbone="yamnet")
    projected.encoder.batch_statistics["visual"] = False
    assert projected.encoder.batch_statistics["audio"]
    assert Trainer(projected, make_optimizer(projected, config), config, CPU).piecewise


def test_the_spread_is_the_smaller_one_of_the_two_modalities() -> None:
    z_a, z_v = embeddings()
    loss = avbt_loss(z_a, z_v)
    spreads = []
    for z in (z_a.flatten(0, 1).numpy(), z_v.flatten(0, 1).numpy()):
        spreads.append(np.sqrt(((z - z.mean(0)) ** 2).mean() / (z**2).mean()))
    assert spreads[1] < 0.5 * spreads[0]
    assert float(step_values(loss, z_a, z_v)[5]) == pytest.approx(spreads[1], rel=1e-5)


@pytest.mark.parametrize(
    "of", [{}, {"affine": False}, {"track_running_stats": False}], ids=lambda of: "-".join(of) or "plain"
)
def test_shared_batch_norms_have_weights_and_statistics_where_the_plain_ones_do(
    monkeypatch: pytest.MonkeyPatch, of: dict[str, bool]
) -> None:
    plain = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3, **of).double())
    shared = copy.deepcopy(plain)
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    monkeypatch.setattr(parallel, "summed", lambda tensor: tensor)  # the other process sees nothing
    synchronise_batch_norms(shared)
    assert isinstance(shared[0], GlobalBatchNorm)
    x = 3 + torch.randn(4, 3, 5, 5).double()
    for training in (True, False):
        torch.testing.assert_close(shared.train(training)(x), plain.train(training)(x))
    torch.testing.assert_close(dict(shared.state_dict()), dict(plain.state_dict()))


def one_of_two(rank: int, folder: str) -> None:
    """A process that sees three clips, or the other two; the first one writes what it finds."""
    parallel.BUCKET_NUMBERS = 100  # several buckets, also of these few weights
    with process_group(CPU):
        assert parallel.smallest(5 + rank, CPU) == 5, "all decide by the same number"
        for number, changes in enumerate(CASES):
            found = gradients_of_a_step((slice(0, 3), slice(3, 5))[rank], **changes)
            if rank == 0:
                torch.save(found, Path(folder) / f"{number}.pt")


def test_a_sum_with_the_same_gradient_everywhere_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: sent.append(tensor.mul_(2)))
    gradients = []
    for same, total in ((False, 2), (True, 1)):
        x = torch.ones(3, requires_grad=True)
        parallel.summed(x, same_gradient=same).square().sum().backward()
        gradients.append(x.grad)
        assert len(sent) == total
        sent.clear()
    assert torch.equal(*gradients)


def test_gradients_are_sent_in_few_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: sent.append(len(tensor.mul_(4))))
    monkeypatch.setattr(parallel, "BUCKET_NUMBERS", 100)
    net = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(5))).to(memory_format=torch.channels_last)
    net(torch.randn(2, 4, 16, 16)).square().sum().backward()
    before = [weight.grad.clone() for weight in net.parameters() if weight.grad is not None]
    parallel.average_gradients(net)
    assert (sum(sent), len(sent) < 10) == (5 * 148, True)
    for weight, gradient in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(weight.grad, 2 * gradient)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    run_two_ranks(one_of_two, tmp_path)
    for number, changes in enumerate(CASES):
        values, gradients = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        expected_values, expected = gradients_of_a_step(slice(None), **changes)
        torch.testing.assert_close(values, expected_values, rtol=1e-9, atol=0)
        assert set(gradients) == set(expected)
        for name, gradient in gradients.items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-10, msg=name)


def test_a_step_moves_what_it_should() -> None:
    config = small_config(lr=1e-2, lr_bias=1e-2)
    projected = small_twins()
    before = copy.deepcopy(projected.state_dict())
    trainer = Trainer(projected, make_optimizer(projected, config), config, CPU)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["peak"]
    trainer.step(*two_modalities())
    still = [name for name, p in projected.named_parameters() if torch.equal(p, before[name])]
    assert still == []
