"""The world in the layouts of published datasets: what is read back is what was composed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import avel
from avel.errors import ConfigError, DatasetError, UnknownNameError
from avel.grid import Grid
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.train import train_head
from avel.recipes.composing import compose as composing
from avel.recipes.composing.compose import CLASSES, clip_path, compose
from avel.recipes.composing.layouts import LAYOUTS
from avel.recipes.composing.script import Course, Script, write_scripts
from avel.stores.datasets.audit import audit
from avel.stores.datasets.dataset import Dataset, Sample
from avel.stores.datasets.formats import find_format, read_dataset
from avel.stores.feature_samples import samples_of_videos
from avel.stores.features import write_features

CLIPS, THREE = 12, CLASSES[:3]
VARYING = ("activitynet", "desed")
"""Layouts that can say any course of a clip."""


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves clips empty: their names are enough for what reads annotations."""

    def touch(path: Path, *_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(composing, "record", touch)


def scripts_of(
    layout: str, course: Course | None = None, classes: Sequence[str] = THREE
) -> tuple[Script, ...]:
    chosen = LAYOUTS[layout]
    return write_scripts(CLIPS, 0, classes, 10, course or chosen.course, chosen.unseen)


def in_order_of(scripts: Sequence[Script], dataset: Dataset, folder: Path, layout: str) -> list[Sample]:
    """The sample of each script, by the file of its clip."""
    file_of = {video.video_id: Path(video.path) for video in dataset.videos}
    sample_of = {file_of[sample.video_id]: sample for sample in dataset.samples}
    return [sample_of[clip_path(folder, script, n, layout)] for n, script in enumerate(scripts)]


@pytest.mark.parametrize(
    ("layout", "course"), [*((name, None) for name in LAYOUTS), *((name, "overlapping") for name in VARYING)]
)
@pytest.mark.usefixtures("unrecorded")
def test_what_is_read_back_is_what_was_composed(tmp_path: Path, layout: str, course: Course | None) -> None:
    folder = compose(tmp_path / "set", clips=CLIPS, classes=THREE, layout=layout, course=course)
    assert find_format(folder) == layout
    dataset = read_dataset(folder)
    scripts = scripts_of(layout, course)
    samples = in_order_of(scripts, dataset, folder, layout)
    assert [sample.split for sample in samples] == [script.split for script in scripts]
    found = audit(dataset)
    assert (found.missing_files, found.extra_files) == ((), ())
    assert found.leaked_samples == {"val": (), "test": ()}
    assert found.samples_of_events == {
        count: sum(len(script.events) == count for script in scripts)
        for count in sorted({len(script.events) for script in scripts})
    }
    if course == "overlapping":
        assert len(found.overlapping_samples) == CLIPS
        assert all(
            sorted(sample.events or (), key=lambda each: each.onset_seconds) == list(script.events)
            for sample, script in zip(samples, scripts, strict=True)
        )
        return
    assert found.overlapping_samples == ()
    for sample, script, row in zip(samples, scripts, dataset.labels(Grid(), samples), strict=True):
        truth = [next(iter(set(a) & set(v)), "") for a, v in zip(script.audio, script.video, strict=True)]
        assert [dataset.categories[label] if label < dataset.background else "" for label in row] == truth
        assert len(sample.events or ()) == len(script.events)


@pytest.mark.usefixtures("unrecorded")
def test_classes_that_train_lacks_are_tagged(tmp_path: Path) -> None:
    folder = compose(tmp_path / "set", clips=CLIPS, classes=THREE, layout="ov-avebench")
    dataset, scripts = read_dataset(folder), scripts_of("ov-avebench")
    samples = in_order_of(scripts, dataset, folder, "ov-avebench")
    assert [sample.tag == "unseen" for sample in samples] == [each.category == THREE[-1] for each in scripts]
    assert {each.split for each in samples if each.tag == "unseen"} == {"val", "test"}


def cached(folder: Path, layout: str, path: Path, course: Course | None = None) -> Path:
    """A cache in the place of encoders that see and hear everything: features are the classes of events."""
    dataset, scripts = read_dataset(folder), scripts_of(layout, course)
    place = {video.video_id: number for number, video in enumerate(dataset.videos)}
    features = np.zeros((len(place), 10, len(THREE)), np.float32)
    for sample, script in zip(in_order_of(scripts, dataset, folder, layout), scripts, strict=True):
        for second, names in enumerate(zip(script.audio, script.video, strict=True)):
            for name in set(names[0]) & set(names[1]):
                features[place[sample.video_id], second, THREE.index(name)] = 1
    samples, _ = samples_of_videos(dataset, tuple(place), {})
    arrays = {"f_a": features, "f_v": features}
    write_features(
        path, video_ids=tuple(place), categories=dataset.categories, samples=samples, arrays=arrays
    )
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("unrecorded")
def test_a_head_that_is_told_everything_is_right_about_what_it_has_seen(tmp_path: Path, layout: str) -> None:
    folder = compose(tmp_path / "set", clips=CLIPS, classes=THREE, layout=layout)
    cache = cached(folder, layout, tmp_path / "features.h5")
    train_head(cache, tmp_path / "run", head="mlp", seeds=1, epochs=60, lr=0.01, device="cpu")
    (group,) = evaluate(tmp_path / "run").groups.values()
    if layout != "ov-avebench":
        assert group.accuracy_percent.mean == group.events.f1_percent.mean == 100
        assert group.by_tag == {}
        return
    test = [script for script in scripts_of(layout) if script.split == "test"]
    seen, unseen = group.by_tag["seen"], group.by_tag["unseen"]
    assert unseen.samples == sum(script.category == THREE[-1] for script in test)
    assert seen.samples + unseen.samples == len(test)
    assert seen.accuracy_percent.mean == seen.event_f1_percent.mean == 100
    assert unseen.event_f1_percent.mean == unseen.segment_f1_percent.mean == 0
    assert group.recall_percent[THREE[-1]] == 0


@pytest.mark.parametrize("layout", VARYING)
@pytest.mark.usefixtures("unrecorded")
def test_events_of_two_classes_at_once_are_learned_as_several_labels(tmp_path: Path, layout: str) -> None:
    folder = compose(tmp_path / "set", clips=CLIPS, classes=THREE, layout=layout, course="overlapping")
    cache = cached(folder, layout, tmp_path / "features.h5", "overlapping")
    options = {"head": "mlp", "seeds": 1, "epochs": 60, "lr": 0.01, "device": "cpu"}
    with pytest.raises(DatasetError, match="overlap from"):
        train_head(cache, tmp_path / "single", **options)
    found = train_head(cache, tmp_path / "run", task="multi_label", **options)
    parsing = found.groups["mlp"].parsing
    assert parsing is not None
    for f1_percent in (parsing.segment_f1_percent, parsing.event_f1_percent):
        assert {spread.mean for spread in f1_percent.values()} == {100}


def test_from_clips_to_figures(tmp_path: Path) -> None:
    folder = compose(tmp_path / "set", clips=9, classes=THREE, layout="ov-avebench")
    tiny = dict.fromkeys(("visual_backbone", "audio_backbone"), "tiny")
    random = dict.fromkeys(("visual_weights", "audio_weights"), "random")
    avel.extract(folder, tmp_path / "s.zarr", size=48, workers=1)
    avel.cache_features(tmp_path / "s.zarr", tmp_path / "c.h5", crop_size=42, device="cpu", **tiny, **random)
    found = avel.train_head(tmp_path / "c.h5", tmp_path / "run", head="mlp", seeds=1, epochs=2, device="cpu")
    truth = [script for script in write_scripts(9, 0, THREE, 10, "runs", 1) if script.split == "test"]
    background = 1 - sum(e.offset_seconds - e.onset_seconds for s in truth for e in s.events) / 10 / len(
        truth
    )
    assert found.samples == len(truth)
    assert found.trivial_baselines_percent["always background"] == pytest.approx(100 * background)


def test_what_a_layout_cannot_say_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seconds=9: clips of ov-avebench have 10 seconds"):
        compose(tmp_path, layout="ov-avebench", seconds=9)
    with pytest.raises(ConfigError, match="course='overlapping': the layout of ave-pm cannot say it"):
        compose(tmp_path, layout="ave-pm", course="overlapping")
    with pytest.raises(UnknownNameError, match="no layout named 'desd'"):
        compose(tmp_path, layout="desd")
    assert not list(tmp_path.iterdir())
