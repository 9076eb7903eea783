"""Trials trained together: each equals its separate training, keeps its own best epoch, ends by itself."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import avel.heads.training.data
import avel.heads.training.fit
from avel.errors import TrainingError
from avel.heads.config import TrainConfig
from avel.heads.models.mlp import MLP
from avel.heads.training.data import Data, feature_statistics
from avel.heads.training.fit import Training, TrialOutcome, can_stack, fit, learning_rate, make_model
from avel.heads.training.trials import Alone, Trial
from avel.stores.datasets.labels import ClassTable
from avel.stores.features import FeatureCache
from tests.heads.synthetic import load_data, train_config, trials_of, write_cache

CPU = torch.device("cpu")


def data_of(path: Path, config: TrainConfig, **changes: Any) -> Data:
    return load_data(FeatureCache.open(write_cache(path / "c.h5", **changes)), config)


def config_of(**settings: Any) -> TrainConfig:
    given: dict[str, Any] = {"epochs": 4, "lr": 1e-3, "batch_size": 16, "d_h": 8, "d_e": 8}
    if settings.get("head", "tacma") != "tacma":
        del given["d_h"], given["d_e"]
    return train_config(**(given | settings))


def trained(trials: list[Trial], data: Data) -> tuple[list[TrialOutcome], list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    return fit(trials, data, CPU, lines.append), lines


@pytest.mark.parametrize("head", ["tacma", "cross_attention", "mlp"])
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_each_trial_equals_its_own_training(head: str, supervision: str, tmp_path: Path) -> None:
    config = config_of(head=head, supervision=supervision)
    data = data_of(tmp_path, config)
    trials = trials_of(config)
    together, lines = trained(trials, data)
    for place, trial in enumerate(trials):
        (alone,), own_lines = trained([trial], data)
        losses = [line["loss"] for line in lines if line["trial"] == trial.name]
        np.testing.assert_allclose(losses, [line["loss"] for line in own_lines], rtol=1e-4)
        assert together[place].best_epoch == alone.best_epoch
        assert together[place].val_score == alone.val_score
        for name, value in alone.state.items():
            # Adam turns rounding of a gradient near 0 into a step of up to its rate, 1e-3
            torch.testing.assert_close(together[place].state[name], value, rtol=1e-3, atol=3e-4)


def test_trials_that_differ_in_theta_are_stacked_and_stay_themselves(tmp_path: Path) -> None:
    data = data_of(tmp_path, config_of())
    trials = [Trial(f"{theta}", config_of(theta=theta)) for theta in (0.0, 0.5)]
    together, _ = trained(trials, data)
    assert [float(outcome.state["head.theta"]) for outcome in together] == [0.0, 0.5]
    for place, trial in enumerate(trials):
        (alone,), _ = trained([trial], data)
        torch.testing.assert_close(
            together[place].state["head.W_a1.weight"], alone.state["head.W_a1.weight"], rtol=1e-3, atol=3e-4
        )
    assert not torch.allclose(together[0].state["head.W_a1.weight"], together[1].state["head.W_a1.weight"])


@pytest.mark.parametrize("head", ["tacma", "mlp", "cross_attention"])
def test_dropout_acts_in_training_alone_and_keeps_trials_apart(head: str, tmp_path: Path) -> None:
    """With `--set dropout=0.5` each trial draws from its own seed, so it is never stacked."""
    with_dropout, without = config_of(head=head, dropout=0.5), config_of(head=head)
    data = data_of(tmp_path, without)
    assert can_stack(without, data, CPU)
    assert not can_stack(with_dropout, data, CPU)
    models = [make_model(Trial("seed=0", config), data) for config in (with_dropout, without)]
    inputs = data.features.of(torch.arange(8))
    train = [model.train()(*inputs).logits for model in models]
    evaluated = [model.eval()(*inputs).logits for model in models]
    torch.testing.assert_close(evaluated[0], evaluated[1])
    torch.testing.assert_close(train[1], evaluated[1])
    assert not torch.allclose(train[0], evaluated[0])


@pytest.mark.parametrize("head", ["tacma", "psp"])
def test_the_same_seed_gives_the_same_numbers(head: str, tmp_path: Path) -> None:
    config = config_of(head=head, epochs=2, inputs="encoded")
    data = data_of(tmp_path, config)
    torch.manual_seed(0)
    _, first = trained(trials_of(config, 1), data)
    torch.manual_seed(1)
    _, again = trained(trials_of(config, 1), data)
    assert first == again


def test_a_trial_whose_loss_turns_nan_ends_and_the_rest_go_on(tmp_path: Path) -> None:
    config = config_of()
    data = data_of(tmp_path, config)
    heads = {theta: dataclasses.replace(config.head, theta=theta) for theta in (0.1, float("nan"), 0.2)}
    trials = [Trial(str(theta), dataclasses.replace(config, head=head)) for theta, head in heads.items()]
    outcome, lines = trained(trials, data)
    assert [one.failure for one in outcome] == ["", "the loss is nan in epoch 1", ""]
    assert [one.epochs for one in outcome] == [4, 1, 4]
    assert [line for line in lines if line["trial"] == "nan"] == [
        {"trial": "nan", "epoch": 1, "loss": None, "failure": "the loss is nan in epoch 1"}
    ]
    (alone,), _ = trained([trials[2]], data)
    torch.testing.assert_close(
        outcome[2].state["head.W_v3.weight"], alone.state["head.W_v3.weight"], rtol=1e-3, atol=3e-4
    )


def test_a_trial_leaves_a_group_of_heads_with_a_weight_that_nothing_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient is None, so Adam holds no moments of it."""
    build = MLP.__init__

    def build_with_idle(self: MLP, *given: Any) -> None:
        build(self, *given)
        self.idle = torch.nn.Linear(2, 2)

    monkeypatch.setattr(MLP, "__init__", build_with_idle)
    config = config_of(head="mlp", epochs=60, patience=3, lr=3e-3)
    outcome, _ = trained(trials_of(config), data_of(tmp_path, config, noise=2.5))
    assert len({one.epochs for one in outcome}) > 1
    for one in outcome:
        first = make_model(one.trial, load_data(FeatureCache.open(tmp_path / "c.h5"), config))
        torch.testing.assert_close(one.state["head.idle.weight"], first.head.get_parameter("idle.weight"))


@pytest.mark.parametrize("count", [1, 2])
def test_weights_that_break_in_the_last_step_fail_their_trial(count: int, tmp_path: Path) -> None:
    config = config_of(head="mlp", lr=1e38, batch_size=60)
    data = data_of(tmp_path, config)
    outcome, lines = trained(trials_of(config, count), data)
    assert [one.failure for one in outcome] == ["the scores are not finite after epoch 1"] * count
    assert all(np.isfinite(line["loss"]) and "val_score" not in line for line in lines)


def test_trials_stop_early_by_themselves(tmp_path: Path) -> None:
    config = config_of(epochs=60, patience=3, lr=3e-3)
    data = data_of(tmp_path, config, noise=2.5)
    outcome, lines = trained(trials_of(config), data)
    for one in outcome:
        own = [line for line in lines if line["trial"] == one.trial.name]
        scores = [line["val_score"] for line in own]
        assert len(own) == one.epochs == one.best_epoch + 3 < 60
        assert one.best_epoch == 1 + scores.index(max(scores))
        assert one.test_score == own[one.best_epoch - 1]["test_score"]
        assert one.best_test_score == max(line["test_score"] for line in own)
    assert len({one.epochs for one in outcome}) > 1


def test_kept_weights_are_those_of_the_best_validation_epoch(tmp_path: Path) -> None:
    config = config_of(epochs=12)
    data = data_of(tmp_path, config, noise=2.0)
    (outcome,), _ = trained(trials_of(config, 1), data)
    model = make_model(outcome.trial, data)
    model.load_state_dict(outcome.state)
    val = data.splits["val"]
    predicted = model(*data.features.of(val.videos)).logits.argmax(-1)
    assert (predicted == val.labels).float().mean().item() == pytest.approx(outcome.val_score)


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "stacked"])
def test_weak_training_chooses_the_epoch_by_labels_of_videos_alone(tmp_path: Path, count: int) -> None:
    """Other times of the events in val change nothing; other classes do, and so does asking for segments."""
    label = np.full((60, 6), 3)
    label[np.arange(60), np.arange(60) % 6] = np.arange(60) % 3
    others = {name: label.copy() for name in ("times", "classes")}
    others["times"][36:48] = np.roll(label[36:48], 3, 1)
    others["classes"][36:48] = np.where(label[36:48] < 3, (label[36:48] + 1) % 3, 3)
    scores = {}
    for by in ("auto", "segments"):
        config = config_of(supervision="weak", select_by=by, epochs=8)
        for name, changed in {"same": label, **others}.items():
            data = data_of(tmp_path, config, label=label)
            val = data.splits["val"]
            other = data_of(tmp_path, config, label=changed).splits["val"]
            evaluated = dataclasses.replace(val, labels=other.labels, video_labels=other.video_labels)
            data.splits["val"] = evaluated
            outcomes, _ = trained(trials_of(config, count), data)
            scores[by, name] = [(outcome.best_epoch, outcome.val_score) for outcome in outcomes]
    assert scores["auto", "same"] == scores["auto", "times"] != scores["auto", "classes"]
    assert scores["segments", "same"] != scores["segments", "times"]


def test_training_minimises_the_loss_of_the_labels_that_were_asked_for(tmp_path: Path) -> None:
    """Half of each clip is background, which only fractions tell."""
    label = np.full((60, 6), 3)
    label[:, :3] = (np.arange(60) % 3)[:, None]
    losses = {}
    for weak_labels in ("event", "fractions"):
        config = config_of(head="mlp", supervision="weak", weak_labels=weak_labels, epochs=40, lr=1e-2)
        _, lines = trained(trials_of(config, 1), data_of(tmp_path, config, label=label))
        losses[weak_labels] = lines[-1]["loss"]
    # cross-entropy with one half and one half is ln 2 at least
    assert losses["event"] < 0.2 < np.log(2) - 1e-3 < losses["fractions"] < 0.75


def test_of_epochs_level_by_videos_the_last_is_kept(tmp_path: Path) -> None:
    config = config_of(supervision="weak", epochs=5, lr=0.0, head="mlp")
    (outcome,), lines = trained(trials_of(config, 1), data_of(tmp_path, config))
    assert len({line["val_score"] for line in lines}) == 1
    assert outcome.best_epoch == 5


def test_val_needs_no_times_where_videos_choose_the_epoch(tmp_path: Path) -> None:
    known = np.ones(60, bool)
    known[36:48] = False
    classes = ClassTable(~known, np.arange(36, 48), np.arange(12) % 3)
    config = config_of(supervision="weak", head="mlp")
    (outcome,), _ = trained(trials_of(config, 1), data_of(tmp_path, config, known=known, classes=classes))
    assert 0 <= outcome.val_score <= 1
    for settings in ({"supervision": "full"}, {"supervision": "weak", "select_by": "segments"}):
        config = config_of(head="mlp", **settings)
        with pytest.raises(
            TrainingError, match="12 of 12 val samples have known classes, but no known times"
        ):
            data_of(tmp_path, config, known=known, classes=classes)


def test_the_last_smaller_batch_is_trained_on(tmp_path: Path) -> None:
    """36 train rows in batches of 35: one epoch is two steps of Adam, not one."""
    config = config_of(epochs=1, batch_size=35)
    data = data_of(tmp_path, config)
    assert len(data.splits["train"]) == 36
    (outcome,), _ = trained(trials_of(config, 1), data)
    start = make_model(outcome.trial, data).state_dict()
    travel = (outcome.state["head.mlp.4.bias"] - start["head.mlp.4.bias"]).abs().max().item()
    assert 1.05e-3 < travel <= 2.001e-3  # each step of Adam moves a parameter by at most its rate


def test_learning_rate_schedules() -> None:
    tacma = train_config()
    assert [learning_rate(tacma.head, epoch) for epoch in (1, 10, 11, 21)] == pytest.approx(
        [1e-4, 1e-4, 0.98e-4, 0.98**2 * 1e-4]
    )
    psp = train_config(head="psp")
    assert [learning_rate(psp.head, epoch) for epoch in (60, 61, 120, 121, 300)] == pytest.approx(
        [1e-3, 0.8e-3, 0.8e-3, 0.64e-3, 0.64e-3]
    )
    avel = train_config(head="avel")
    assert [learning_rate(avel.head, epoch) for epoch in (288, 289)] == pytest.approx([1e-3, 1e-4])
    cosine = train_config(lr=1.0, lr_decay=1.0, warmup_epochs=4, cosine=True, epochs=12).head
    rises = [0.25, 0.5, 0.75, 1.0]
    falls = [(1 + math.cos(math.pi * passed / 8)) / 2 for passed in range(8)]
    found = [learning_rate(cosine, epoch) for epoch in range(1, 13)]
    assert found == pytest.approx([*rises, *falls])


@pytest.mark.parametrize("together", ["always", "never"])
def test_a_clipped_gradient_has_the_given_norm(together: str, tmp_path: Path) -> None:
    """One step of clipped plain gradients, written out; Adam's first step is the same for any scale."""
    config = config_of(head="mlp", clip_norm=0.01, together=together, batch_size=60)
    data = data_of(tmp_path, config)
    training = Training(trials_of(config, 2 if together == "always" else 1), data, CPU)
    wanted = Training(trials_of(config_of(head="mlp", batch_size=60), len(training.alive)), data, CPU)
    training.train_epoch(1)
    wanted.train_epoch(1)
    stacked = len(training.alive) > 1
    clipped, free = (
        [weight.grad for weight in each.group.parameters() if weight.grad is not None]
        for each in (training, wanted)
    )
    assert clipped
    for trial in range(len(training.alive)):
        own, full = (
            torch.cat([(grad[trial] if stacked else grad).flatten() for grad in grads])
            for grads in (clipped, free)
        )
        assert own.norm().item() == pytest.approx(0.01, rel=1e-3)
        torch.testing.assert_close(own, full * 0.01 / full.norm(), rtol=1e-3, atol=1e-7)


def test_weight_decay_is_added_to_the_gradient(tmp_path: Path) -> None:
    """torch's Adam adds weight_decay x weight to the gradient: with a large one, signs follow the weights."""
    config = config_of(head="mlp", weight_decay=1e6, batch_size=60, epochs=1)
    data = data_of(tmp_path, config)
    training = Training(trials_of(config, 1), data, CPU)
    before = [weight.detach().clone() for weight in training.group.parameters()]
    training.train_epoch(1)
    for old, new in zip(before, training.group.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 1e-3 * old.sign(), rtol=1e-3, atol=1e-5)


def test_standardised_features_have_mean_0_and_std_1_over_train(tmp_path: Path) -> None:
    config = config_of(standardise=True)
    data = data_of(tmp_path, config)
    train = data.splits["train"]
    mean, std = feature_statistics(data.features, train)["audio"]
    audio, _ = data.features.of(torch.unique(train.videos))
    np.testing.assert_allclose(mean, audio.numpy().mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(std, audio.numpy().std((0, 1)), rtol=1e-5)
    model = make_model(trials_of(config, 1)[0], data)
    assert model.standard_a is not None
    scaled = model.standard_a(audio)
    assert scaled.mean((0, 1)).abs().max() < 1e-5


def test_the_standardisation_is_measured_once_for_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []

    def counted(*given: Any) -> Any:
        measured.append(given)
        return feature_statistics(*given)

    monkeypatch.setattr(avel.heads.training.data, "feature_statistics", counted)
    config = config_of(standardise=True, epochs=1)
    data = data_of(tmp_path, config)
    for count in (1, 3):
        trained(trials_of(config, count), data)
    assert len(measured) == 1


def test_a_feature_that_never_varies_in_train_is_left_unscaled(tmp_path: Path) -> None:
    config = config_of(standardise=True)
    data = data_of(tmp_path, config)
    assert data.features.tensors is not None
    data.features.tensors[0][torch.unique(data.splits["train"].videos), :, 3] = 0.25
    standard = make_model(trials_of(config, 1)[0], data).standard_a
    assert standard is not None
    assert (standard.mean[3], standard.std[3]) == (0.25, 1.0)
    assert (standard.std != 1.0).sum() == len(standard.std) - 1


@pytest.mark.parametrize(
    ("head", "count"),
    [("psp", 1), ("avel", 1), ("bilstm", 1), ("tacma", 3), ("mlp", 3), ("cross_attention", 3)],
)
def test_every_head_trains_in_bfloat16(head: str, count: int, tmp_path: Path) -> None:
    """The first epoch's losses are near those of float32, and fall; stacked trials among them."""
    losses = {}
    for dtype in ("float32", "bfloat16"):
        dropout = {"dropout": 0.0} if head == "psp" else {}
        config = config_of(head=head, dtype=dtype, epochs=2, **dropout)
        data = data_of(tmp_path, config, arrays=("f_a", "f_v", "cnn_a", "cnn_v", "maps"))
        outcome, lines = trained(trials_of(config, count), data)
        losses[dtype] = np.array([line["loss"] for line in lines]).reshape(2, count)
        assert {value.dtype for one in outcome for value in one.state.values()} == {torch.float32}
    first, last = losses["bfloat16"]
    assert (last < first).all()
    assert (first != losses["float32"][0]).all()
    np.testing.assert_allclose(first, losses["float32"][0], rtol=0.02)


def test_bfloat16_learns_the_same(tmp_path: Path) -> None:
    accuracies = {}
    for dtype in ("float32", "bfloat16"):
        config = config_of(epochs=30, dtype=dtype, d_h=32, d_e=32)
        data = data_of(tmp_path, config)
        (outcome,), _ = trained(trials_of(config, 1), data)
        accuracies[dtype] = outcome.val_score
    assert accuracies["bfloat16"] == pytest.approx(accuracies["float32"], abs=0.05)
    assert accuracies["float32"] > 0.9


@pytest.mark.parametrize(("small_step_flop", "threads"), [(1e9, 1), (1e3, 2)])
def test_small_steps_train_on_one_thread_and_give_the_other_back(
    small_step_flop: float, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(head="mlp", epochs=1)
    data = data_of(tmp_path, config)
    monkeypatch.setattr(avel.heads.training.fit, "SMALL_STEP_FLOP", small_step_flop)
    losses_of, used = Alone.losses, []

    def losses(group: Alone, *given: torch.Tensor) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return losses_of(group, *given)

    monkeypatch.setattr(Alone, "losses", losses)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trained(trials_of(config, 1), data)
        assert set(used) == {threads}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
