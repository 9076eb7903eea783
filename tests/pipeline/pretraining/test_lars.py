"""LARS in loops, the learning rates by part, and the schedule."""

import itertools
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avel.pipeline.config import AUDIO_BACKBONES, PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.lars import LARS
from avel.pipeline.pretraining.presets import PRESETS
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import lr_fraction, make_optimizer, parameter_groups, peak_lrs
from tests.pipeline.configs import made, pretrain_config

RATE, MOMENTUM, TRUST, DECAY = 0.3, 0.9, 1e-3, 1e-2


def lars_in_loops(start: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Element by element: You et al. 2017 with the exclusions of Barlow Twins."""
    weight, velocity = start.copy(), np.zeros_like(start)
    for gradient in gradients:
        update = gradient.copy()
        if weight.ndim != 1:
            update = update + DECAY * weight
            weight_norm = math.sqrt(sum(float(w) ** 2 for w in weight.flat))
            update_norm = math.sqrt(sum(float(u) ** 2 for u in update.flat))
            if weight_norm > 0 and update_norm > 0:
                update = update * (TRUST * weight_norm / update_norm)
        velocity = MOMENTUM * velocity + update
        weight = weight - RATE * velocity
    return weight


def test_lars_is_the_written_out_one() -> None:
    random = np.random.default_rng(0)
    starts = [random.standard_normal(shape) for shape in ((3, 4), (5,), (2, 3, 2, 2))]
    starts += [np.zeros((2, 2)), random.standard_normal((2, 2))]
    gradients = [[random.standard_normal(start.shape) for _ in range(4)] for start in starts]
    gradients[3][0][:] = 0  # weight and gradient zero: nothing to scale
    parameters = [torch.nn.Parameter(torch.from_numpy(start.copy())) for start in starts]
    group = {"params": parameters, "lr": RATE}
    optimizer = LARS([group], momentum=MOMENTUM, trust=TRUST, weight_decay=DECAY)
    for step in range(4):
        for parameter, given in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(given[step].copy())
        optimizer.step()
    for parameter, start, given in zip(parameters, starts, gradients, strict=True):
        np.testing.assert_allclose(parameter.detach(), lars_in_loops(start, given), rtol=1e-12)


def test_a_parameter_without_gradient_stays() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    LARS([{"params": [parameter], "lr": 1.0}]).step()
    assert torch.equal(parameter, torch.ones(2, 2))


def rates(config: PretrainConfig) -> dict[str, float]:
    """Parameter name -> its peak rate."""
    projected = ProjectedEncoder(build_encoder(config), config)
    names = {id(parameter): name for name, parameter in projected.named_parameters()}
    groups = parameter_groups(projected, config)
    return {names[id(parameter)]: group["peak"] for group in groups for parameter in group["params"]}


def tiny_config(**changes: object) -> PretrainConfig:
    random = {"visual_weights": "random", "audio_weights": "random"}
    settings = {"visual_backbone": "tiny", "audio_backbone": "tiny", "projector": "8-8", "batch_size": 64}
    return pretrain_config(**(random | settings | changes))


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "audio.safetensors"
    save_file(made(AUDIO_BACKBONES, "tiny").state_dict(), path)
    return str(path)


def test_pretrained_cnns_are_slow_and_the_rest_is_not(weights: str) -> None:
    found = rates(tiny_config(audio_weights=weights))
    assert found["encoder.audio.layers.0.weight"] == pytest.approx(0.2 * 64 / 256 * 2e-4)
    assert found["encoder.audio.layers.1.bias"] == pytest.approx(0.0048 * 64 / 256 * 2e-4)
    assert found["encoder.visual.layers.0.weight"] == pytest.approx(0.2 * 64 / 256), "random: full rate"
    assert found["encoder.temporal.visual_lstm.weight_ih_l0"] == pytest.approx(0.2 * 64 / 256)
    assert found["encoder.temporal.visual_lstm.bias_ih_l0"] == pytest.approx(0.0048 * 64 / 256)
    assert found["projector.0.weight"] == pytest.approx(0.2 * 64 / 256)


def test_the_literal_reading_slows_everything(weights: str) -> None:
    found = rates(tiny_config(audio_weights=weights, **PRESETS["paper-literal"]))
    assert found["projector.0.weight"] == pytest.approx(0.2 * 64 / 256 * 2e-4)
    assert found["encoder.audio.layers.0.weight"] == pytest.approx(0.2 * 64 / 256 * 2e-4)


def test_frozen_cnns_are_not_trained() -> None:
    assert not [name for name in rates(tiny_config(freeze_backbone=True)) if ".layers." in name]


def test_biases_and_norms_take_no_decay() -> None:
    config = tiny_config(optimizer="adamw", weight_decay=0.5)
    projected = ProjectedEncoder(build_encoder(config), config)
    for group in make_optimizer(projected, config).param_groups:
        narrow = {parameter.ndim == 1 for parameter in group["params"]}
        assert len(narrow) == 1
        assert group["weight_decay"] == (0.0 if True in narrow else 0.5)


def test_the_optimizer_takes_its_settings_from_the_config() -> None:
    config = tiny_config(momentum=0.5, trust=0.25, weight_decay=0.125)
    groups = make_optimizer(ProjectedEncoder(build_encoder(config), config), config).param_groups
    assert {(group["momentum"], group["trust"]) for group in groups} == {(0.5, 0.25)}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.125}


def test_rates_can_be_given() -> None:
    assert peak_lrs(PretrainConfig()) == pytest.approx((0.1, 0.0024))
    assert peak_lrs(pretrain_config(optimizer="adamw")) == pytest.approx((1e-3, 1e-3))
    assert peak_lrs(pretrain_config(lr=0.5, lr_bias=0.25)) == (0.5, 0.25)


def test_the_schedule_warms_up_and_falls_to_a_tenth() -> None:
    config = pretrain_config(epochs=100, warmup_epochs=10)
    fraction = [lr_fraction(step, 26, config) for step in range(2600)]
    assert fraction[0] == pytest.approx(1 / 260)
    assert fraction[129] == pytest.approx(130 / 260)
    assert max(fraction) == fraction[260] == 1
    assert fraction[260 + 1170] == pytest.approx(0.1 + 0.9 / 2)
    assert fraction[-1] == pytest.approx(0.1, abs=1e-4)
    assert all(a > b for a, b in itertools.pairwise(fraction[260:]))


def test_the_schedule_ends_where_it_is_told_to() -> None:
    config = pretrain_config(epochs=2, warmup_epochs=0, final_lr=0.5)
    assert lr_fraction(100, 100, config) == pytest.approx(0.75)
    assert lr_fraction(200, 100, config) == 0.5


def test_no_warm_up_starts_at_the_peak() -> None:
    assert lr_fraction(0, 3, pretrain_config(warmup_epochs=0)) == 1
