"""Run folders: what was asked, with what, what happened; the same command goes on."""

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from avel.config import option, resolve, settings_of
from avel.errors import MissingPathError, StoreError
from avel.heads.config import TrainConfig
from avel.pipeline.config import PretrainConfig
from avel.stores.runs import Run, forget_unused


@dataclass(frozen=True)
class Sample:
    epochs: int = option(3, "Epochs.")
    name: str | None = option(None, "Name.")
    device: str = option("auto", "Device.", in_key=False)


def test_a_run_keeps_config_inputs_and_versions(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", "heads", Sample(5), inputs={"cache": "abc"})
    run = Run.open(tmp_path / "r", "heads")
    assert run.config(Sample) == Sample(5)
    assert run.inputs == {"cache": "abc"}
    assert set(run.record.versions) >= {"python", "avel", "torch"}


def test_metrics_survive_a_kill_in_mid_line(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", "heads", Sample(), inputs={})
    run.log(epoch=1, loss=0.5)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert run.metrics() == [{"epoch": 1, "loss": 0.5}]
    run.rewind(run.metrics())
    run.log(epoch=2, loss=0.25)
    assert [line["epoch"] for line in run.metrics()] == [1, 2]


def test_the_same_command_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", "heads", Sample(), inputs={"cache": "a"})
    assert Run.create(tmp_path / "r", "heads", Sample(), inputs={"cache": "a"}).kind == "heads"
    with pytest.raises(StoreError, match="epochs was 3, is now 4"):
        Run.create(tmp_path / "r", "heads", Sample(4), inputs={"cache": "a"})
    with pytest.raises(StoreError, match="cache was 'a', is now 'b'"):
        Run.create(tmp_path / "r", "heads", Sample(), inputs={"cache": "b"})
    with pytest.raises(StoreError, match="holds a run of avel train-head"):
        Run.create(tmp_path / "r", "pretrain", Sample(), inputs={"cache": "a"})


def test_a_run_goes_on_with_settings_that_change_no_numbers(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", "heads", Sample(), inputs={})
    again = Run.create(tmp_path / "r", "heads", Sample(device="cuda"), inputs={})
    assert again.config(Sample) == Sample()
    with pytest.raises(StoreError, match=r"other config: epochs was 3, is now 4\n"):
        Run.create(tmp_path / "r", "heads", Sample(4, device="cuda"), inputs={})


@pytest.mark.parametrize(
    ("stage", "free"),
    [
        (
            TrainConfig,
            {
                *("device", "together", "memory_gb", "tensorboard", "metrics_hook"),
                *("negatives", "init"),  # paths; what lies there is compared by its digest
            },
        ),
        (
            PretrainConfig,
            {
                *("device", "workers", "checkpoint_every", "tensorboard", "clips_at_once", "compile"),
                *("frozen_vectors", "metrics_hook", "decode"),
            },
        ),
    ],
)
def test_which_settings_of_a_run_change_no_numbers(stage: type, free: set[str]) -> None:
    assert {setting.name for setting in settings_of(stage()) if not setting.in_key} == free


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(StoreError, match="not an avel run"):
        Run.create(tmp_path, "heads", Sample(), inputs={})
    with pytest.raises(StoreError, match="not a run"):
        Run.open(tmp_path)
    with pytest.raises(MissingPathError, match="avel train-head"):
        Run.open(tmp_path / "nowhere")


def test_a_run_killed_before_its_record_was_there_is_begun_again(tmp_path: Path) -> None:
    path = Run.create(tmp_path / "r", "heads", Sample(), inputs={}).path
    (path / "run.json").rename(path / ".run.json.host.1.partial")
    (path / ".lock").touch()
    with pytest.raises(StoreError, match="not an avel run"):
        Run.create(path, "heads", Sample(4), inputs={})
    assert Run.create(path, "heads", Sample(), inputs={}).config(Sample) == Sample()
    assert Run.open(path).kind == "heads"


def test_results_are_there_when_the_run_is_finished(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", "pretrain", Sample(), inputs={})
    with pytest.raises(StoreError, match=r"not finished\s+next: give the same avel pretrain"):
        _ = run.results
    run.finish(Sample(4))
    assert Run.open(run.path).results == asdict(Sample(4))
    assert Run.open(run.path).read_results(Sample) == Sample(4)
    with pytest.raises(StoreError, match="made by avel pretrain, need one made by avel train-head") as caught:
        Run.open(run.path, "heads")
    assert "avel cache-features STORE CACHE --encoder RUN" in caught.value.hint


def test_a_damaged_list_of_files_is_mended_by_training_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", "heads", Sample(), inputs={})
    run.finish(Sample(4))
    (run.path / "files.json").write_text("{")
    with pytest.raises(StoreError, match="no JSON") as caught:
        Run.open(run.path).faults(verify=False)
    assert caught.value.hint == run.how_to_remake()  # without the file, it is finished all the same


def test_a_run_goes_on_when_its_cache_moved_but_not_with_another(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", "heads", Sample(), inputs={"cache": "/old/c.h5", "cache_digest": "a"})
    moved = {"cache": "/new/c.h5", "cache_digest": "a"}
    assert Run.create(tmp_path / "r", "heads", Sample(), inputs=moved).inputs == moved
    assert Run.open(tmp_path / "r").inputs == moved
    with pytest.raises(StoreError, match="cache_digest was 'a', is now 'b'"):
        Run.create(tmp_path / "r", "heads", Sample(), inputs={"cache": "/new/c.h5", "cache_digest": "b"})
    assert Run.open(tmp_path / "r").inputs == moved


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_ended_before_its_first_epoch_does_not_take_the_name(tmp_path: Path, begun: bool) -> None:
    run = Run.create(tmp_path / "run", "heads", Sample(1), inputs={})
    run.rewind([{"epoch": 1}] if begun else [])
    forget_unused(run.path)
    if begun:
        with pytest.raises(StoreError, match="epochs was 1, is now 2"):
            Run.create(run.path, "heads", Sample(2), inputs={})
    else:
        Run.create(run.path, "heads", Sample(2), inputs={})
        assert Run.open(run.path).config(Sample).epochs == 2


def test_another_component_is_named_without_its_settings(tmp_path: Path) -> None:
    first = resolve(TrainConfig, "train-head", options={"head": "mlp"})
    Run.create(tmp_path / "r", "heads", first, inputs={})
    other = resolve(TrainConfig, "train-head", options={"head": "psp", "audio": "clap"})
    with pytest.raises(StoreError) as refused:
        Run.create(tmp_path / "r", "heads", other, inputs={})
    assert refused.value.message.endswith(
        "other config: audio was '', is now 'clap', head was 'mlp', is now 'psp', "
        "standardise was True, is now False"
    )
    named_alike = resolve(TrainConfig, "train-head", options={"head": "mlp", "audio": "mlp", "lr": 1e-5})
    with pytest.raises(StoreError, match=r"audio was '', is now 'mlp', mlp\.lr was 0\.0001, is now 1e-05"):
        Run.create(tmp_path / "r", "heads", named_alike, inputs={})


def test_a_run_says_itself_when_it_was_finished(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", "heads", Sample(), inputs={})
    run.finish(Sample(4))
    finished = Run.open(run.path).finished_on
    assert re.fullmatch(r"\d{4}-\d\d-\d\d at \d\d:\d\d", finished)
    os.utime(run.path / "results.json", (0, 0))  # as a copy that lost its times
    assert Run.open(run.path).finished_on == finished
    assert Run.open(run.path).reopen(Sample(), {}).record.finished == ""
