"""What shows while AV-BT trains: progress, TensorBoard's events, collapse by its name."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avel.errors import ConfigError
from avel.pipeline.encoders.header import LAST
from avel.pipeline.pretraining.monitor import EpochMeans, collapse
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.pretraining.record import Recorder
from avel.progress import Progress
from avel.stores.clips import ClipStore
from avel.stores.runs import Run
from tests.pipeline.pretraining.clip_store import make_store
from tests.pipeline.pretraining.small_runs import CONFIG, FROZEN
from tests.tensorboard import install


def test_events_are_the_metrics_and_are_written_out(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = install(monkeypatch)
    pretrain(store, tmp_path / "run", CONFIG, tensorboard=True, epochs=2)
    ((folder, events),) = made.items()
    assert folder == str(tmp_path / "run" / "tensorboard")
    assert events.closed
    for line in Run.open(tmp_path / "run").metrics():
        assert events.scalars["loss", line["epoch"]] == line["loss"]
        assert events.scalars["moved/projector", line["epoch"]] == line["moved"]["projector"]


def test_tensorboard_reads_the_events(store: ClipStore, tmp_path: Path) -> None:
    reason = "tensorboard is not installed"
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    ).EventAccumulator
    pretrain(store, tmp_path / "run", CONFIG, tensorboard=True, epochs=2)
    events = reader(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = Run.open(tmp_path / "run").metrics()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(
        [line["loss"] for line in lines]
    )


def test_without_tensorboard_nothing_is_begun(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard"):
        pretrain(store, tmp_path / "run", CONFIG, **FROZEN, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_progress_shows_the_loss_and_its_parts(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = []
    original = Progress.advance

    def watched(self: Progress, steps: int = 1, *, failed: int = 0, note: str = "") -> None:
        notes.append(note)
        original(self, steps, failed=failed, note=note)

    monkeypatch.setattr(Progress, "advance", watched)
    pretrain(store, tmp_path / "run", CONFIG, batch_size=3)
    lines = Run.open(tmp_path / "run").metrics()
    assert notes[2::3] == [
        f"epoch {line['epoch']}/4 loss {line['loss']:.4g} "
        f"(on-diagonal {line['on_diagonal']:.4g}, off-diagonal {line['off_diagonal']:.4g})"
        for line in lines
    ], "after the two steps of each epoch, its means"
    assert len({*notes}) == 12


def test_still_frames_and_silence_stay_finite_and_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "still.zarr", clips=4, still=True)
    summary = pretrain(store, tmp_path / "run", CONFIG, crop=False, blur=False, epochs=2)
    assert 0 < summary.loss < 1000
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "run" / LAST).values())
    assert "copies of one another" in summary.collapsed, "the Bi-LSTMs' own course over time is all there is"
    assert "without motion and sound" in summary.collapsed


def test_a_collapse_is_remembered_by_a_run_that_had_only_its_summary_left(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("avel.pipeline.pretraining.record.collapse", lambda means: "collapsed: a test says so")
        patch.setattr(Recorder, "summary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(store, tmp_path / "run", CONFIG)
    assert pretrain(store, tmp_path / "run", CONFIG).collapsed == "collapsed: a test says so"


def interrupted(_: Recorder) -> None:
    raise KeyboardInterrupt


HEALTHY = EpochMeans(
    loss=10, on_diagonal=9, off_diagonal=200, diagonal=0.3, redundancy=1e-3, relative_std=0.5
)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"loss": float("nan")}, "finite"),
        ({"relative_std": 1e-5}, "constant"),
        ({"redundancy": 0.8}, "copies"),
        ({"redundancy": 0.0, "diagonal": 0.0}, "nothing changes"),
    ],
)
def test_collapse_is_named(change: dict[str, float], word: str | None) -> None:
    found = collapse(replace(HEALTHY, **change))
    assert found is None if word is None else word in str(found)
