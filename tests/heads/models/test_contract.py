"""What every registered head must do, whoever wrote it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from avel.config import convert, settings_of
from avel.errors import ConfigError, UnknownNameError
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import Model, Widths, build_model
from avel.heads.training.trials import Stacked
from avel.stores.datasets.labels import PADDED
from tests.heads.synthetic import train_config

D, K, SIDE = 16, 6, 3
FEW_AND_MANY = (4, 8)
"""Clips of 6 segments, fewer and more than 2 D in all: from there TACMA multiplies in another order."""
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("avel", {"fusion": "dmrn"}),
    ("tacma", {"routing": "printed"}),
    ("cross_attention", {"routing": "printed"}),
    *((name, {"modality": modality}) for name in ("mlp", "bilstm") for modality in ("audio", "visual")),
    *((name, {"merge": "concatenate"}) for name in ("mlp", "bilstm")),
    *((name, {"task": task}) for name in HEADS for task in HEADS[name].tasks[1:]),
]
"""Settings by which a head becomes another network, and the tasks beside its first."""
FEWER: dict[str, dict[str, Any]] = {"jcan": {"recursions": 1}}
"""Settings that spare time: of parts that are all alike, one is enough here."""
CASES = [
    pytest.param((name, settings), source, id="-".join([name, *settings.values(), source]))
    for name, settings in [*((name, {}) for name in HEADS), *VARIANTS]
    for source in HEADS[name].inputs
]
TAUGHT = [
    pytest.param(*case.values, supervision, id=f"{case.id}-{supervision}")
    for case in CASES
    for supervision in ("full", "weak")
    if supervision == "full" or HEADS[case.values[0][0]].weak  # type: ignore[index]
]
STACKABLE = [case for case in TAUGHT if HEADS[case.values[0][0]].stackable]  # type: ignore[index]
Case = tuple[str, dict[str, Any]]


def segments_of(name: str) -> int:
    """How long the clips of most tests are: 6 segments, or the fewest that the head can take."""
    taken = HEADS[name].segments
    return 6 if taken is None or 6 in taken else int(taken[0])


def model_of(
    case: Case,
    source: str,
    supervision: str = "full",
    seed: int = 0,
    segments: int | None = None,
    project: int | None = None,
    wider: int = 0,
) -> Model:
    """A head for features of width D; those of an input that is projected may be wider."""
    name, settings = case
    options = {"head": name, "supervision": supervision, "project": project}
    config = train_config(**options, **FEWER.get(name, {}), **settings)
    cells = SIDE**2 if source == "maps" else 0
    task = task_of(case)
    tracks = 2 if task == "multi_label" else 1
    widths = (D + (wider > 0), D + wider)
    return build_model(config, Widths(*widths, K, cells, segments or segments_of(name), task, tracks), seed)


def task_of(case: Case) -> str:
    name, settings = case
    return str(settings.get("task", HEADS[name].tasks[0]))


def targets_of(case: Case, supervision: str, *clips: int) -> torch.Tensor:
    """Labels of segments or of videos; any classes in each of two tracks, or one class."""
    segments = segments_of(case[0])
    if task_of(case) == "single_label":
        labels = torch.arange(math.prod(clips) * segments).reshape(*clips, segments) % K
        return labels[..., 0] if supervision == "weak" else labels
    shape = (*clips, K // 2) if supervision == "weak" else (*clips, segments, K)
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(5))


def inputs(source: str, clips: int, segments: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    shape = (clips, segments, SIDE, SIDE, D) if source == "maps" else (clips, segments, D)
    return torch.randn(clips, segments, D, generator=random), torch.randn(*shape, generator=random)


@pytest.mark.parametrize("name", list(HEADS))
def test_the_settings_are_whole(name: str) -> None:
    config = HEADS[name].Config()
    assert config.name == name
    assert isinstance(config, HeadConfig)
    assert HEADS[name].source
    for setting in settings_of(config):
        assert setting.help, setting.name
        assert convert(setting, setting.of(config), "default") == setting.of(config)


@pytest.mark.parametrize(("case", "source"), CASES)
@pytest.mark.parametrize("segments", [1, 6, 13])
def test_scores_any_number_of_segments_or_says_which(case: Case, source: str, segments: int) -> None:
    taken = HEADS[case[0]].segments
    if taken is not None and segments not in taken:
        with pytest.raises(ConfigError, match=f"takes {taken[0]} to {taken[-1]} segments.* {segments}"):
            model_of(case, source, segments=segments)
        return
    output = model_of(case, source, segments=segments).eval()(*inputs(source, 4, segments))
    assert output.logits.shape == (4, segments, K)
    assert torch.isfinite(output.logits).all()
    assert all(len(values) == 4 for values in output.extras.values())


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("mlp", "bilstm")])
def test_attention_maps_are_named_outputs(name: str) -> None:
    """Rows of weights that sum to 1, or to less where a modality attends to itself as well."""
    source, segments = HEADS[name].inputs[0], segments_of(name)
    output = model_of((name, {}), source).eval()(*inputs(source, 4, segments))
    named = HEADS[name].attention_maps
    assert named or name == "han"  # whose weights are of two tracks
    for key, rows, columns in named:
        values = output.extras[key]
        wide = SIDE**2 if columns == "cells" else segments
        assert values.shape == ((4, wide) if rows == "clip" else (4, segments, wide)), key
        assert (values >= 0).all()
        assert (values.sum(-1) <= 1 + 1e-5).all()


@pytest.mark.parametrize(("case", "source", "supervision"), TAUGHT)
def test_the_gradient_reaches_all_parameters(case: Case, source: str, supervision: str) -> None:
    model, segments = model_of(case, source, supervision), segments_of(case[0])
    torch.manual_seed(0)  # dropout
    loss = model.loss(model(*inputs(source, 4, segments)), targets_of(case, supervision, 4))
    loss.backward()
    still = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not still


@pytest.mark.parametrize(
    ("case", "source"),
    [case for case in CASES if case.values[1] == HEADS[case.values[0][0]].inputs[-1]],  # type: ignore[index]
)
def test_features_of_any_width_are_projected_by_weights_that_learn(case: Case, source: str) -> None:
    plain, model = model_of(case, source), model_of(case, source, project=D, wider=3)
    segments = segments_of(case[0])
    audio, visual = inputs(source, 4, segments)
    torch.manual_seed(0)  # dropout
    loss = model.loss(
        model(torch.nn.functional.pad(audio, (0, 1)), torch.nn.functional.pad(visual, (0, 3))),
        targets_of(case, "full", 4),
    )
    loss.backward()
    assert model.project
    for layer in model.project.values():
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum()
    same = dict(plain.head.named_parameters())
    assert all(torch.equal(values, same[name]) for name, values in model.head.named_parameters())


@pytest.mark.parametrize(("case", "source"), CASES)
def test_clips_do_not_see_each_other(case: Case, source: str) -> None:
    model = model_of(case, source).eval()
    for clips in FEW_AND_MANY:
        audio, visual = inputs(source, clips, segments_of(case[0]))
        order = torch.arange(clips).roll(2)
        together = model(audio, visual).logits
        torch.testing.assert_close(model(audio[order], visual[order]).logits, together[order])
        torch.testing.assert_close(model(audio[:1], visual[:1]).logits, together[:1])


MASKED = [
    case
    for case in TAUGHT
    for head in [HEADS[case.values[0][0]]]  # type: ignore[index]
    if head.takes_differing_lengths and case.values[1] == head.inputs[0]
]
ANY_LENGTH = [
    case
    for case in MASKED
    if HEADS[case.values[0][0]].segments is None and case.values[0][0] != "jcan"  # type: ignore[index]
]
"""Heads without weights over a fixed number of segments, which can take a clip by itself."""
LENGTHS = (3, 5, 2, 6)


@pytest.mark.parametrize(("case", "source", "supervision"), MASKED)
def test_what_is_after_the_end_of_a_clip_has_no_influence(case: Case, source: str, supervision: str) -> None:
    segments = segments_of(case[0])
    model = model_of(case, source, supervision)
    lengths = torch.tensor(LENGTHS)
    outside = torch.arange(segments) >= lengths[:, None]
    audio, visual = inputs(source, 4, segments)
    garbage = [values.clone() for values in (audio, visual)]
    for values in garbage:
        values[outside] = math.nan
    targets = targets_of(case, supervision, 4)
    if supervision == "full":
        targets[outside] = PADDED
    torch.manual_seed(0)  # dropout, and noise in training
    loss = model.loss(model(*garbage, lengths), targets)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    model.eval()
    together = model(*garbage, lengths).logits
    assert not together[outside].any()
    torch.testing.assert_close(together, model(audio, visual, lengths).logits)


@pytest.mark.parametrize(("case", "source", "supervision"), ANY_LENGTH)
def test_a_padded_clip_scores_as_if_it_stood_alone(case: Case, source: str, supervision: str) -> None:
    model = model_of(case, source, supervision).eval()
    audio, visual = inputs(source, 4, 6)
    together = model(audio, visual, torch.tensor(LENGTHS)).logits
    for clip, length in enumerate(LENGTHS):
        alone = model(audio[clip : clip + 1, :length], visual[clip : clip + 1, :length])
        torch.testing.assert_close(together[clip : clip + 1, :length], alone.logits)


@pytest.mark.parametrize(("case", "source", "supervision"), ANY_LENGTH)
def test_the_loss_of_short_clips_is_that_of_their_segments(case: Case, source: str, supervision: str) -> None:
    """All clips of one length: the loss is that of a batch which is no longer than they are."""
    model = model_of(case, source, supervision).eval()
    audio, visual = inputs(source, 4, 6)
    targets = targets_of(case, supervision, 4)
    short = targets[:, :4] if supervision == "full" else targets
    wanted = model.loss(model(audio[:, :4], visual[:, :4]), short)
    if supervision == "full":
        targets[:, 4:] = PADDED
    found = model.loss(model(audio, visual, torch.full((4,), 4)), targets)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("case", "source", "supervision"), STACKABLE)
def test_stacked_losses_and_gradients_are_each_trials_own(case: Case, source: str, supervision: str) -> None:
    models = [model_of(case, source, supervision, seed).double() for seed in range(3)]
    segments = segments_of(case[0])
    features = inputs(source, 24, segments)
    audio, visual = (values.double().unflatten(0, (3, 8)) for values in features)
    targets = targets_of(case, supervision, 3, 8)
    stacked = Stacked(models, torch.device("cpu"))
    losses = stacked.losses(audio, visual, targets)
    gradients = dict(
        zip(stacked.weights, torch.autograd.grad(losses.sum(), stacked.parameters()), strict=True)
    )
    for place, model in enumerate(models):
        loss = model.loss(model(audio[place], visual[place]), targets[place])
        loss.backward()
        torch.testing.assert_close(losses[place], loss, rtol=1e-12, atol=0)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][place], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("case", "source"), CASES)
def test_the_seed_decides_the_weights(case: Case, source: str) -> None:
    torch.manual_seed(0)
    first = model_of(case, source, seed=7).state_dict()
    torch.manual_seed(1)
    again, other = model_of(case, source, seed=7).state_dict(), model_of(case, source, seed=8).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("case", "source"), CASES)
def test_saved_weights_give_the_same_scores(case: Case, source: str, tmp_path: Path) -> None:
    model, other = model_of(case, source).eval(), model_of(case, source, seed=9).eval()
    save_file(model.state_dict(), tmp_path / "head.safetensors")
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    for clips in FEW_AND_MANY:
        features = inputs(source, clips, segments_of(case[0]))
        assert torch.equal(model(*features).logits, other(*features).logits)


@pytest.mark.parametrize("name", [name for name in HEADS if not HEADS[name].weak])
def test_video_labels_are_refused_by_a_head_that_cannot_learn_from_them(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' cannot learn from video labels"):
        model_of((name, {}), HEADS[name].inputs[0], "weak")


@pytest.mark.parametrize("name", list(HEADS))
def test_a_setting_of_another_head_is_refused(name: str) -> None:
    foreign = {"theta": 0.1, "threshold": 0.1, "fusion": "dmrn", "modality": "audio"}
    for setting, value in foreign.items():
        if not hasattr(HEADS[name].Config(), setting):
            with pytest.raises(ConfigError, match=f"no setting named '{setting}'"):
                train_config(head=name, **{setting: value})


@pytest.mark.parametrize("name", [name for name in HEADS if not HEADS[name].weak])
def test_a_head_without_a_weak_form_refuses_video_labels(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot learn from video labels"):
        model_of((name, {}), HEADS[name].inputs[0], "weak")


@pytest.mark.parametrize("name", list(HEADS))
def test_another_task_is_refused_and_the_heads_that_can_are_named(name: str) -> None:
    for task in {"single_label", "multi_label"} - set(HEADS[name].tasks):
        with pytest.raises(ConfigError, match=f"head '{name}' is for task .*, and this is {task}") as refused:
            model_of((name, {"task": task}), HEADS[name].inputs[0])
        able = [other for other in HEADS if task in HEADS[other].tasks]
        assert f"heads that can: {', '.join(able)}" in str(refused.value)


def test_an_unknown_head_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean tacma"):
        train_config(head="tacna")
