"""`train_head` and `sweep`: what a run folder holds, how it goes on, what stops it."""

import dataclasses
import inspect
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import avel.heads.train
from avel.cli import cli
from avel.console import DONE, USAGE
from avel.console import run as run_command
from avel.errors import AvelError, ConfigError, StoreError, TrainingError
from avel.heads.config import HEADS, TrainConfig
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.evaluation import Evaluation, FailedTrial
from avel.heads.evaluation.predictions import read_predictions
from avel.heads.models.head import code_digest, head_class
from avel.heads.models.mlp import MLP
from avel.heads.models.tacma import TACMA
from avel.heads.train import sweep, train_head
from avel.heads.training.data import read_data
from avel.heads.training.fit import Training, can_stack
from avel.heads.training.plan import plan, stackable_groups
from avel.heads.training.records import load_head, load_model, read_trained, read_trial, read_trials
from avel.options import varied
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.heads.synthetic import train_config, write_cache

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-3, "d_h": 8, "d_e": 8, "together": "never"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "features.h5")


def test_a_run_holds_config_metrics_trials_predictions_and_results(cache: Path, tmp_path: Path) -> None:
    results = train_head(cache, tmp_path / "run", seeds=2, **QUICK)
    run = Run.open(tmp_path / "run", "heads")
    assert run.finished
    assert run.read_results(Evaluation) == results == evaluate(run.path)
    assert run.inputs["cache_digest"] == FeatureCache.open(cache).digest
    assert run.record.hardware == "cpu"
    assert run.config(TrainConfig).head.theta == 0.03
    assert [(line["trial"], line["epoch"]) for line in run.metrics()] == [
        (f"seed={seed}", epoch) for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    assert {path.name for path in (tmp_path / "run" / "trials").iterdir()} == {
        f"seed={seed}.{ending}" for seed in (0, 1) for ending in ("json", "safetensors")
    }
    assert "best_test_score" in json.loads((run.path / "trials" / "seed=0.json").read_text())


def test_predictions_are_one_row_a_trial_sample_and_segment(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", seeds=2, **QUICK)
    table = pq.read_table(tmp_path / "run" / "predictions.parquet")
    assert table.num_rows == 2 * (12 + 12) * 6
    keys = list(zip(*(table[name].to_pylist() for name in ("trial", "sample", "segment")), strict=True))
    assert len(set(keys)) == len(keys)
    opened = FeatureCache.open(cache)
    label_of = dict(zip(opened.samples.number.tolist(), opened.labels().tolist(), strict=True))
    for line in table.to_pylist():
        assert line["label"] == label_of[line["sample"]][line["segment"]]
        assert sum(line["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert line["prediction"] == int(np.argmax(line["probabilities"]))


def test_predictions_are_those_of_the_best_validation_epoch(cache: Path, tmp_path: Path) -> None:
    results = train_head(cache, tmp_path / "run", **(QUICK | {"epochs": 8}))
    run = Run.open(tmp_path / "run")
    trial = read_trial(run, "seed=0")
    lines = run.metrics()
    best = max(lines, key=lambda line: line["val_score"])
    assert trial.best_epoch == best["epoch"]
    group = results.groups["tacma"]
    assert group.accuracy_percent.mean == pytest.approx(100 * best["test_score"])
    claimed = max(line["test_score"] for line in lines)
    assert group.score_at_best_test_epoch_percent.mean == pytest.approx(100 * claimed)


def test_a_head_learns_what_the_cache_holds(cache: Path, tmp_path: Path) -> None:
    results = train_head(cache, tmp_path / "run", head="mlp", epochs=60, lr=3e-3)
    accuracy = results.groups["mlp"].accuracy_percent.mean
    assert accuracy is not None
    assert accuracy > 20 + max(results.trivial_baselines_percent.values())


def test_the_same_command_gives_the_same_numbers(cache: Path, tmp_path: Path) -> None:
    first = train_head(cache, tmp_path / "a", seeds=2, **QUICK)
    again = train_head(cache, tmp_path / "b", seeds=2, **QUICK)
    assert first.groups == again.groups


def test_a_finished_run_is_not_trained_again(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    results = train_head(cache, tmp_path / "run", **QUICK)
    monkeypatch.setattr(avel.heads.train, "fit", None)
    assert train_head(cache, tmp_path / "run", **QUICK) == results
    with pytest.raises(StoreError, match=r"theta was 0\.03, is now 0\.1"):
        train_head(cache, tmp_path / "run", theta=0.1, **QUICK)


def test_more_seeds_are_trained_beside_those_that_are_there(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_head(cache, run, seeds=2, **QUICK)
    weights = run / "trials" / "seed=0.safetensors"
    before = weights.stat().st_mtime_ns
    results = train_head(cache, run, seeds=3, **QUICK)
    assert weights.stat().st_mtime_ns == before
    assert results == dataclasses.replace(
        train_head(cache, tmp_path / "at-once", seeds=3, **QUICK), run=str(run)
    )
    assert [trial.name for trial in read_trials(Run.open(run))] == ["seed=0", "seed=1", "seed=2"]
    with pytest.raises(StoreError, match="seeds was 3, is now 2"):
        train_head(cache, run, seeds=2, **QUICK)
    with pytest.raises(StoreError, match="patience was 0, is now 1"):
        train_head(cache, run, seeds=4, patience=1, **QUICK)
    assert Run.open(run).finished


def test_a_run_of_an_edited_head_is_refused_or_trained_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, written = tmp_path / "run", tmp_path / "idea.py"
    monkeypatch.setattr("avel.heads.models.head.inspect.getfile", lambda kind: written)
    written.write_text("scores = audio + visual")
    first = train_head(cache, run, **QUICK)
    assert train_head(cache, run, **QUICK) == first
    assert "nothing to train" in capsys.readouterr().err
    written.write_text("scores = audio * visual")
    with pytest.raises(StoreError, match=r"head_code_digest\.tacma was") as refused:
        train_head(cache, run, **QUICK)
    assert "--overwrite" in str(refused.value)
    weights = run / "trials" / "seed=0.safetensors"
    before = weights.stat().st_mtime_ns
    train_head(cache, run, overwrite=True, **QUICK)
    assert weights.stat().st_mtime_ns > before


def test_overwrite_removes_nothing_but_a_run_of_heads(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(AvelError):
        train_head(cache, tmp_path / "notes", overwrite=True, **QUICK)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_heads_have_digests_of_their_own_code() -> None:
    digests = {name: code_digest(HEADS[name]) for name in HEADS}
    assert len(set(digests.values())) == len(digests)


def test_the_digest_of_a_head_covers_the_heads_whose_layers_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = {name: code_digest(HEADS[name]) for name in HEADS}, inspect.getfile
    edited = tmp_path / "cmran.py"
    edited.write_text("class AttentionLayer: pass")
    with monkeypatch.context() as patch:
        patch.setattr("inspect.getfile", lambda kind: edited if "cmran" in kind.__module__ else real(kind))
        changed = {name for name in HEADS if code_digest(HEADS[name]) != before[name]}
    assert changed == {"cmran", "cmbs", "cace", "lesp", "avt_style", "mpn_style"}


def test_an_interrupted_sweep_goes_on(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole = sweep(cache, tmp_path / "whole", {"theta": [0, 0.1]}, seeds=2, **QUICK)
    real, calls = avel.heads.train.fit, []

    def killed_in_the_third(trials: Any, data: Any, device: Any, log: Any, ended: Any) -> Any:
        calls.append(trials[0].name)
        if len(calls) == 3:
            log({"trial": trials[0].name, "epoch": 1, "loss": 1.0})
            raise KeyboardInterrupt
        return real(trials, data, device, log, ended)

    monkeypatch.setattr(avel.heads.train, "fit", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        sweep(cache, tmp_path / "run", {"theta": [0, 0.1]}, seeds=2, **QUICK)
    assert len(read_trials(Run.open(tmp_path / "run"))) == 2
    resumed = sweep(cache, tmp_path / "run", {"theta": [0, 0.1]}, seeds=2, **QUICK)
    assert calls[3:] == ["theta=0.1,seed=0", "theta=0.1,seed=1"]
    assert resumed.groups == whole.groups
    assert Run.open(tmp_path / "run").metrics() == Run.open(tmp_path / "whole").metrics()


def test_trials_of_a_stacked_group_are_kept_as_soon_as_they_end(
    cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    settings = QUICK | {"together": "always", "patience": 2, "epochs": 60, "lr": 3e-3, "seeds": 3}
    whole = train_head(cache, tmp_path / "whole", **settings)
    lengths = {trial.name: trial.epochs for trial in read_trials(Run.open(tmp_path / "whole"))}
    first, last = min(lengths.values()), max(lengths.values())
    assert first < last < 60
    real = Training.epoch

    def killed_after_the_first_end(training: Training) -> Any:
        if training.alive[0].epochs == first:
            raise KeyboardInterrupt
        return real(training)

    monkeypatch.setattr(Training, "epoch", killed_after_the_first_end)
    with pytest.raises(KeyboardInterrupt):
        train_head(cache, tmp_path / "run", **settings)
    ended = {name for name, epochs in lengths.items() if epochs == first}
    assert {trial.name for trial in read_trials(Run.open(tmp_path / "run"))} == ended
    monkeypatch.setattr(Training, "epoch", real)
    resumed = train_head(cache, tmp_path / "run", **settings)
    lines = Run.open(tmp_path / "run").metrics()
    assert {name: sum(line["trial"] == name for line in lines) for name in lengths} == lengths
    assert resumed.groups["tacma"].best_epochs == whole.groups["tacma"].best_epochs


def test_stacked_trials_are_evaluated_like_trials_in_turn(cache: Path, tmp_path: Path) -> None:
    groups = [
        sweep(cache, tmp_path / together, {"theta": [0, 0.1]}, seeds=2, **(QUICK | {"together": together}))
        for together in ("always", "never")
    ]
    groups = [results.groups for results in groups]
    assert list(groups[0]) == list(groups[1]) == ["theta=0.0", "theta=0.1"]
    for name in groups[0]:
        assert groups[0][name].best_epochs == groups[1][name].best_epochs
        stacked, alone = (group[name].accuracy_percent.mean for group in groups)
        assert stacked == pytest.approx(alone, abs=100 / 72)


def test_trials_alike_but_for_seed_and_theta_are_one_program() -> None:

    def sizes(settings: dict[str, list[Any]]) -> list[int]:
        groups = stackable_groups(
            plan(None, {"seeds": 3}, settings), lambda config: head_class(config).stackable
        )
        return [len(group) for group in groups]

    assert sizes({"theta": [0, 0.03]}) == [6]
    assert sizes({"d_h": [64, 128]}) == [3, 3]
    assert sizes({"head": ["mlp", "psp"]}) == [3, 1, 1, 1]


def test_small_steps_are_stacked_on_a_cpu_and_large_ones_run_in_turn(cache: Path) -> None:
    cpu = torch.device("cpu")
    small = train_config(d_h=8, d_e=8)
    data = read_data(FeatureCache.open(cache), small, cpu)
    large = train_config(d_h=40_000, d_e=8)
    psp = train_config(head="psp")
    assert can_stack(small, data, cpu)
    assert not can_stack(large, data, cpu)
    assert can_stack(dataclasses.replace(large, together="always"), data, cpu)
    assert not can_stack(dataclasses.replace(small, together="never"), data, cpu)
    assert not can_stack(dataclasses.replace(psp, together="always"), data, cpu)


def test_a_sweep_over_heads(cache: Path, tmp_path: Path) -> None:
    results = sweep(cache, tmp_path / "run", {"head": ["mlp", "cross_attention"]}, epochs=2)
    assert set(results.groups) == {"head=mlp", "head=cross_attention"}


def test_results_of_a_sweep_are_in_the_order_of_training(cache: Path, tmp_path: Path) -> None:
    """Not in that of results.json, where batch_size=16 stands before batch_size=8."""
    results = sweep(cache, tmp_path / "run", {"batch_size": [8, 64, 16]}, head="mlp", epochs=1)
    assert list(results.groups) == ["batch_size=8", "batch_size=64", "batch_size=16"]
    assert [line.split()[0] for line in results.lines()[2:5]] == list(results.groups)
    assert list(evaluate(tmp_path / "run").groups) == list(results.groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"theta": [-0.1]}, "must be at least 0"),
        ({"theta": 0.03}, "vary 'theta': 0.03 is not a list"),
        ({"theta": "0.03"}, "vary 'theta': '0.03' is not a list"),
        ({"theta": []}, "'theta': it has no values\n.*theta=0,0.03"),
        (
            {"theta": [0, 0.1, 0.0]},
            "train theta=0.0,seed=0 twice, also as theta=0.0,seed=0\n.*each value once",
        ),
        (
            {"theta": [0, 0.1], "tacma.theta": [0.2]},
            "vary both 'theta' and 'tacma.theta': they are one setting",
        ),
        ({"theta": ["none", 0.03]}, "theta='none' is not a number"),
        ({"seed": [1, 2]}, "--seeds"),
        ({"task": ["single_label", "multi_label"]}, "cannot vary 'task': a run has one task"),
        ({"psp.dropout": [0.1]}, "vary 'psp.dropout': psp is not chosen\n.*--set head=tacma,psp"),
        (
            {"threshold": [0.1]},
            "no setting named 'threshold'\n.*threshold is a setting of head .*psp.*, not of tacma",
        ),
        ({"tehta": [0.1]}, "did you mean theta"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(settings: Any, message: str, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(cache, tmp_path / "run", settings, **QUICK)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(head=TACMA.Config(theta=-0.1)), "theta=-0.1 must be at least 0"),
        (TrainConfig(head=TACMA.Config(routing="crossed")), "'crossed' is not one of cross, printed"),  # type: ignore[arg-type]
        (TrainConfig(head=MLP.Config(epochs="many")), "epochs='many' is not a whole number"),  # type: ignore[arg-type]
        (TrainConfig(seeds=0), "seeds=0 must be at least 1"),
    ],
)
def test_a_config_that_cannot_be_is_refused_before_anything_is_written(
    config: TrainConfig, message: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_head(cache, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("standardise", [False, True])
def test_features_of_unlike_width_are_projected_and_the_run_says_so(
    standardise: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = write_cache(tmp_path / "features.h5", arrays=("cnn_a", "cnn_v", "f_a", "f_v"))
    options: dict[str, Any] = {"inputs": "cnn", "epochs": 2, "seeds": 2, "standardise": standardise}
    for together in ("always", "never"):
        train_head(cache, tmp_path / together, together=together, **options)
        shown = capsys.readouterr().err
        assert shown.count("10 and 14 wide: a Linear for each brings them to 256 (--project)") == 1
    records = [read_trials(Run.open(tmp_path / name, "heads")) for name in ("always", "never")]
    assert [record.config.project for record in records[0]] == [256, 256]
    for stacked, alone in zip(*records, strict=True):
        assert stacked.val_score == pytest.approx(alone.val_score, abs=0.03)
    model = load_head(tmp_path / "never", "seed=1")
    assert model.project["audio"].weight.shape == (256, 10)
    assert model.project["visual"].weight.shape == (256, 14)
    features, samples = FeatureCache.open(cache), FeatureCache.open(cache).samples
    videos = samples.video[samples.split == "val"]
    with torch.inference_mode():
        scores = model(*(torch.from_numpy(features.read(name, videos)) for name in ("cnn_a", "cnn_v"))).logits
    accuracy = (scores.argmax(-1).numpy() == features.labels()[samples.split == "val"]).mean()
    assert accuracy == pytest.approx(records[1][1].val_score)
    with pytest.raises(ConfigError, match="project"):
        train_head(cache, tmp_path / "no", project=0, **options)


def test_a_projection_that_was_asked_for_is_trained_and_needs_no_word(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(cache, tmp_path / "run", {"head": ["tacma", "mlp"], "project": [4, 8]}, epochs=1)
    assert "--project" not in capsys.readouterr().err
    widths = {
        record.name: record.config.project for record in read_trials(Run.open(tmp_path / "run", "heads"))
    }
    assert sorted(widths.values()) == [4, 4, 8, 8]
    train_head(cache, tmp_path / "audio", head="mlp", modality="audio", project=4, epochs=1)
    assert set(load_head(tmp_path / "audio").project) == {"audio"}


def test_heads_that_concatenate_or_read_one_modality_take_features_as_they_are(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "features.h5", f_v=np.zeros((59, 6, 20), np.float32))
    for name, settings in {
        "join": {"merge": "concatenate"},
        "one": {"modality": "visual"},
        "other": {"head": "psp"},
    }.items():
        train_head(cache, tmp_path / name, **{"head": "mlp", "epochs": 1, **settings})
        (record,) = read_trials(Run.open(tmp_path / name, "heads"))
        assert record.config.project is None
        assert not load_head(tmp_path / name).project


def test_every_supervision_of_a_sweep_is_checked(tmp_path: Path) -> None:
    label = np.full((60, 6), 3)
    label[:, 2:4] = np.where(np.arange(60) < 36, 1, 2)[:, None]
    cache = write_cache(tmp_path / "features.h5", label=label)
    with pytest.raises(TrainingError, match="videos of one class only"):
        sweep(cache, tmp_path / "run", {"supervision": ["full", "weak"]}, **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_sweep_does_not_choose_by_scores_of_different_kinds(tmp_path: Path) -> None:
    """An epoch is chosen by the classes of videos, whose scores are higher, or by labels of segments."""
    cache = write_cache(tmp_path / "features.h5")
    for settings in ({"supervision": ["full", "weak"]}, {"select_by": ["segments", "videos"]}):
        with pytest.raises(ConfigError, match="not comparable"):
            sweep(cache, tmp_path / "run", settings, **QUICK)
    assert not (tmp_path / "run").exists()
    assert len(sweep(cache, tmp_path / "run", settings | {"select_by": ["auto", "segments"]}, **QUICK)) == 2


def test_a_setting_of_a_head_that_is_not_trained_is_refused(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = [str(cache), str(tmp_path / "run"), "--epochs", "1", "--set", "mlp.batch_size=8"]
    for command in (
        ["train-head", *quick, "--head", "tacma"],
        ["sweep", *quick, "--set", "head=tacma,bilstm"],
        ["sweep", *quick, "--set", "lr=1e-3,1e-4"],
    ):
        assert run_command(cli, command) == USAGE
        told = " ".join(capsys.readouterr().err.split())
        assert "--set mlp.batch_size=8 has no effect: mlp is not chosen" in told
    assert not (tmp_path / "run").exists()
    assert run_command(cli, ["sweep", *quick, "--set", "head=tacma,mlp"]) == DONE


def test_settings_of_a_sweep_as_the_command_line_gives_them() -> None:
    assert varied(["theta=0, 0.03", "d-h=64,128", "epochs=3"]) == (
        ("epochs=3",),
        {"theta": ["0", "0.03"], "d_h": ["64", "128"]},
    )
    for items in (["theta=0,1", "theta=2,3"], ["theta=0,1", "theta=2"], ["theta=2", "theta=0,1"]):
        with pytest.raises(ConfigError, match="names theta again"):
            varied(items)
    with pytest.raises(ConfigError, match="holds an empty value"):
        varied(["theta=0,,0.1"])


@pytest.mark.parametrize(
    ("sets", "follows"),
    [
        (
            ["--set", "lr=1e-3,1e-2", "--set", "batch-size=8,16"],
            "avel plot {} sweep --setting lr --out sweep.pdf",
        ),
        ([], "avel report {} --out report"),
    ],
)
def test_a_sweep_names_a_command_that_shows_it(
    sets: list[str], follows: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert run_command(cli, ["sweep", str(cache), run, "--head", "mlp", "--epochs", "1", *sets]) == DONE
    told = capsys.readouterr().err.partition("  next: ")[2]
    assert " ".join(told.split()) == follows.format(run)
    plot = shlex.split(told)[1:-1]
    if sets:
        assert run_command(cli, [*plot, str(tmp_path / "sweep.pdf")]) == DONE


def test_a_setting_that_is_a_list_is_not_swept(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(cache), str(tmp_path / "run"), "--set"]
    assert run_command(cli, [*command, "milestones=60,120"]) == USAGE
    shown = capsys.readouterr().err
    assert "milestones" in shown
    assert "--milestones 60,120" in shown
    assert not (tmp_path / "run").exists()


def test_a_setting_of_one_head_is_swept_in_its_trials_alone(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(cache), str(tmp_path / "run"), "--epochs", "1", "--set", "head=mlp,tacma"]
    for value in ("0.03,0.3", "0.3"):
        assert run_command(cli, [*command, "--set", f"theta={value}"]) == USAGE
        told = " ".join(capsys.readouterr().err.split())
        assert f"theta={value}: head 'mlp' has no setting 'theta'" in told
        assert f"--set tacma.theta={value} gives it to tacma alone" in told
    assert not (tmp_path / "run").exists()
    assert run_command(cli, [*command, "--set", "tacma.theta=0.03,0.3", "--json"]) == DONE
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert set(groups) == {"head=mlp", "head=tacma,theta=0.03", "head=tacma,theta=0.3"}
    assert Run.open(tmp_path / "run").inputs["swept"] == ["head", "theta"]


def test_a_head_without_a_swept_setting_is_trained_once_whatever_holds_the_values() -> None:
    for values in ([512, 768], range(512, 1024, 256)):
        planned = plan(None, {}, {"head": ["mlp", "tacma"], "tacma.d_h": values})
        assert [trial.settings for trial in planned] == [
            {"head": "mlp"},
            {"head": "tacma", "d_h": 512},
            {"head": "tacma", "d_h": 768},
        ]


def test_a_sweep_wins_over_a_preset_and_a_file(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[train-head.tacma]\ntheta = 0.5\nlr = 0.01\n")
    command = ["sweep", str(cache), str(tmp_path / "run"), "--epochs", "1", "--preset", "paper"]
    more = ["--config", str(config), "--set", "theta=0.03,0.3", "--json"]
    assert run_command(cli, [*command, *more]) == DONE
    assert set(json.loads(capsys.readouterr().out)["groups"]) == {"theta=0.03", "theta=0.3"}
    assert [trial.config.head.lr for trial in read_trained(Run.open(tmp_path / "run"))] == [0.01, 0.01]


def test_a_swept_setting_is_no_option_too(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(cache), str(tmp_path / "run"), "--batch-size", "8", "--set", "batch-size=4,16"]
    assert run_command(cli, command) == USAGE
    assert "cannot vary 'batch_size': batch_size='8' sets it already" in capsys.readouterr().err
    command[-1] = "tacma.batch_size=4,16"
    assert run_command(cli, command) == USAGE
    assert "cannot vary 'tacma.batch_size': batch_size='8' sets it already" in capsys.readouterr().err
    twins = {
        "theta=0.5": "cannot vary 'theta': tacma.theta='0.5' sets it already",
        "theta=0,0.2": "cannot vary both 'tacma.theta' and 'theta': they are one setting",
    }
    for other, message in twins.items():
        given = ["--set", f"tacma.{other}", "--set", "theta=0,0.1"]
        for more in ([], ["--trials", "2"]):
            assert run_command(cli, ["sweep", str(cache), str(tmp_path / "run"), *given, *more]) == USAGE
            assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigError, match="vary 'd_h': d_h=8 sets it already"):
        sweep(cache, tmp_path / "run", {"d_h": [4, 16]}, **QUICK)
    assert not (tmp_path / "run").exists()


def test_bad_input_leaves_no_run_behind(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "features.h5", label=np.full((60, 6), 3))
    with pytest.raises(TrainingError, match="one class"):
        train_head(cache, tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_trial_that_turns_nan_is_reported_and_left_out(
    cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    class Breaks(MLP):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.seed = torch.initial_seed()

        def loss(self, output: Any, labels: Any) -> Any:
            seed_1 = self.seed == 1
            return super().loss(output, labels) * (float("nan") if seed_1 else 1.0)

    HEADS["mlp"]
    monkeypatch.setitem(HEADS._entries, "mlp", Breaks)
    results = train_head(cache, tmp_path / "run", head="mlp", seeds=3, epochs=2, together="never")
    assert results.failed_trials == (FailedTrial("seed=1", "mlp", "the loss is nan in epoch 1"),)
    assert results.groups["mlp"].seeds == (0, 2)
    failed = "no trial stayed finite; seed=1: the loss is nan in epoch 1"
    with pytest.raises(TrainingError, match=failed):
        train_head(cache, tmp_path / "other", head="mlp", seed=1, epochs=2)
    for read in (read_predictions, read_trained):  # what report, plots, evaluation and predict begin with
        with pytest.raises(TrainingError, match=failed):
            read(Run.open(tmp_path / "other"))


def test_a_kept_trial_gives_its_predictions_again(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", standardise=True, **QUICK)
    run = Run.open(tmp_path / "run")
    model = load_model(run, read_trial(run, "seed=0"))
    opened = FeatureCache.open(cache)
    videos = opened.samples.video[opened.samples.split == "test"]
    with torch.no_grad():
        logits = model(*(torch.from_numpy(opened.read(name)[videos]) for name in ("f_a", "f_v"))).logits
    table = pq.read_table(run.path / "predictions.parquet", filters=[("split", "==", "test")])
    kept = np.array(table["probabilities"].to_pylist()).reshape(12, 6, 4)
    np.testing.assert_allclose(torch.softmax(logits, -1), kept, atol=1e-6)
    with pytest.raises(StoreError, match="the run holds seed=0"):
        read_trial(run, "seed=5")


def test_evaluate_says_what_it_cannot_do(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", **QUICK)
    with pytest.raises(StoreError, match="no predictions of split 'train'"):
        evaluate(tmp_path / "run", "train")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="choose from argmax, event"):
        evaluate(tmp_path / "run", decoder="viterbi")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["batch-size", "mlp.batch_size"])
def test_a_swept_setting_may_be_named_as_in_a_file(cache: Path, tmp_path: Path, key: str) -> None:
    found = sweep(cache, tmp_path / "run", {key: [8, 16]}, head="mlp", epochs=1)
    assert set(found.groups) == {"batch_size=8", "batch_size=16"}
    assert Run.open(tmp_path / "run").inputs["swept"] == ["batch_size"]


def test_paths_are_swept(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "first", head="mlp", epochs=1, seeds=2)
    weights = [str(tmp_path / "first" / "trials" / f"seed={seed}.safetensors") for seed in (0, 1)]
    found = sweep(cache, tmp_path / "run", {"init": weights}, head="mlp", epochs=1)
    assert set(found.groups) == {f"init={path}" for path in weights}


@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_patience_ends_a_trial_whose_score_stays(cache: Path, tmp_path: Path, supervision: str) -> None:
    """Chosen by videos, the latest of the epochs with one score is taken, and is still no better."""
    options = {"head": "mlp", "lr": 0.0, "patience": 2, "epochs": 20}
    train_head(cache, tmp_path / "run", supervision=supervision, **options)
    trial = read_trial(Run.open(tmp_path / "run"), "seed=0")
    assert (trial.epochs, trial.best_epoch) == (3, 1 if supervision == "full" else 3)
