"""Data of the page's clips: one table in data/clips.js, details in files that the page loads when needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.errors import StaleError
from avel.heads.tasks.metrics import Labels
from avel.progress import Progress, note
from avel.views.footage import Footage
from avel.views.inside import Inside, look_inside
from avel.views.reading import HeadRun
from avel.views.report.pictures import link_video, write_pictures

DETAIL_CLIPS, DETAIL_FILES = 32, 150
"""Fewest clips in a detail file, and most detail files: if there are many clips, each file holds more."""
BROWSED_RUNS, BROWSED_TRIALS, BROWSED_SEGMENTS = 8, 5, 4_000_000
"""Limits of what the page shows clip by clip: runs, trials of each run, and segments of these together.
Where there would be more segments, it shows fewer runs and trials. Charts show all."""
PICTURED_VIDEOS, PICTURED_SEGMENTS = 900, 20_000
"""Most videos with pictures and attention maps, and most segments of these."""
TOP_CLASSES = 3
DRAWN_CLASSES = 4
"""Number of classes whose probabilities the page draws over time: those with the highest peaks."""


@dataclass(frozen=True)
class BrowsedClips:
    """Clips of the page: C samples of the dataset, in the order of splits and samples.

    Attributes:
        samples: (C,) numbers of the samples.
        first: (C,) the first run that has the sample, and the sample's index in its arrays.
        runs: runs whose predictions are shown, of `trials` trials each at most.
        pictured: videos that are shown with pictures and attention maps.
        places: for each of `runs`, (C,) the index of each clip in its arrays, -1 for a clip that it lacks.
    """

    samples: NDArray[np.int64]
    first: tuple[tuple[HeadRun, int], ...]
    runs: tuple[HeadRun, ...]
    trials: int
    pictured: frozenset[str]
    places: tuple[NDArray[np.int64], ...]

    @property
    def detail_clips(self) -> int:
        """Returns the number of clips in one detail file."""
        return max(DETAIL_CLIPS, -(-len(self.samples) // DETAIL_FILES))

    @property
    def clip_of_sample(self) -> dict[int, int]:
        """Returns sample number -> number of its clip on the page."""
        return {int(number): clip for clip, number in enumerate(self.samples)}


def browse(runs: Sequence[HeadRun]) -> BrowsedClips:
    """Collects the clips for which any run has predictions.

    Raises:
        StaleError: the runs differ in classes, segments or task, or in the video or labels of a sample.
    """
    first: dict[int, tuple[HeadRun, int]] = {}
    for run in runs:
        if run.task != runs[0].task or run.label.shape[1:] != runs[0].label.shape[1:]:
            raise _misfit(runs[0], run, "other classes, segments or task")
        for place, number in enumerate(run.number.tolist()):
            other, at = first.setdefault(number, (run, place))
            same = other.video_id[at] == run.video_id[place]
            if not same or not np.array_equal(other.label[at], run.label[place]):
                raise _misfit(other, run, f"sample {number} differs")
    samples = np.array(list(first), np.int64)
    segments = len(samples) * runs[0].label.shape[1]
    shown = tuple(runs[: min(BROWSED_RUNS, max(1, BROWSED_SEGMENTS // segments))])
    trials = min(BROWSED_TRIALS, max(1, BROWSED_SEGMENTS // (segments * len(shown))))
    places = tuple(_places(run, samples) for run in shown)
    pictured = _pictured(shown[-1], places[-1], [run.video_id[place] for run, place in first.values()])
    return BrowsedClips(samples, tuple(first.values()), shown, trials, pictured, places)


def _pictured(run: HeadRun, places: NDArray[np.int64], ids: Sequence[str]) -> frozenset[str]:
    """Returns the videos that a run's first trial gets most wrong, all where they are few enough."""
    scores = _scores(run, run.prediction[0], places)
    worst = sorted(range(len(ids)), key=lambda clip: 2.0 if (score := scores[clip]) is None else score)
    videos = list(dict.fromkeys(ids[clip] for clip in worst))
    return frozenset(videos[: min(PICTURED_VIDEOS, max(1, PICTURED_SEGMENTS // run.label.shape[1]))])


def _misfit(one: HeadRun, other: HeadRun, why: str) -> StaleError:
    paths = f"{one.run.path} and {other.run.path}"
    return StaleError(f"{paths} do not fit one report: {why}", hint="make a report of each")


def _places(run: HeadRun, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    place_of = {number: place for place, number in enumerate(run.number.tolist())}
    return np.array([place_of.get(number, -1) for number in samples.tolist()], np.int64)


def clip_table(browsed: BrowsedClips, footage: Footage, folder: Path, *, copy_videos: bool) -> dict[str, Any]:
    """Returns the contents of data/clips.js; writes pictures, and copies videos if told, into `folder`."""
    ids = [run.video_id[place] for run, place in browsed.first]
    videos = list(dict.fromkeys(ids))
    number_of = {video_id: number for number, video_id in enumerate(videos)}
    media, paths = _write_media(videos, browsed.pictured, footage, folder, copy_videos)
    return {
        "sample": browsed.samples,
        "video": [number_of[video_id] for video_id in ids],
        "video_id": videos,
        "media": media,
        "path": paths,
        "title": [run.task.title(run.label[place]) for run, place in browsed.first],
        "length": [run.lengths[place] for run, place in browsed.first],
        "split": [run.split[place] for run, place in browsed.first],
        "label": [
            run.task.classes_of(run.label[place]) if run.known[place] else None
            for run, place in browsed.first
        ],
        "predictions": [
            [
                [None if place < 0 else run.task.classes_of(trial[place]) for place in places]
                for trial in run.prediction[: browsed.trials]
            ]
            for run, places in zip(browsed.runs, browsed.places, strict=True)
        ],
        "scores": [
            [_scores(run, trial, places) for trial in run.prediction[: browsed.trials]]
            for run, places in zip(browsed.runs, browsed.places, strict=True)
        ],
    }


def _scores(run: HeadRun, predicted: Labels, places: NDArray[np.int64]) -> list[float | None]:
    """Returns the main metric of each clip, a fraction; None where its events are not known: (C,)."""
    known = (places >= 0) & run.known[places]
    scores = np.full(len(places), np.nan)
    scores[known] = run.task.sample_scores(predicted[places[known]], run.label[places[known]])
    return [None if np.isnan(score) else round(score, 4) for score in scores.tolist()]


def _write_media(
    videos: list[str], pictured: frozenset[str], footage: Footage, folder: Path, copy_videos: bool
) -> tuple[list[int], list[str | None]]:
    """Writes pictures; returns for each video the number in their names, 0 without pictures, and its link."""
    (folder / "media").mkdir()
    media: list[int] = []
    paths: list[str | None] = []
    with Progress(len(videos), "videos", of="pictures") as progress:
        for number, video_id in enumerate(videos, 1):
            drawn = video_id in pictured and write_pictures(footage, video_id, folder / "media", number)
            media.append(number if drawn else 0)
            source = footage.videos.get(video_id)
            if source is not None and copy_videos and not footage.is_original(video_id):
                note(f"{source}: is not copied, since it is not the file that was staged as {video_id}")
                source = None
            paths.append(link_video(source, folder, number, copy=copy_videos))
            progress.advance()
    return media, paths


def details(browsed: BrowsedClips) -> Iterator[tuple[str, list[Any]]]:
    """Yields detail files by name: for each clip, run and trial the likeliest classes and attention maps."""
    ids = [run.video_id[place] for run, place in browsed.first]
    pictured = [clip for clip, video_id in enumerate(ids) if video_id in browsed.pictured]
    row_of = {clip: row for row, clip in enumerate(pictured)}
    insides = [  # a run that lacks a clip (place -1) computes its first sample instead, which nothing reads
        [
            look_inside(run, trial, np.maximum(places[pictured], 0))
            for trial, _ in enumerate(run.trials[: browsed.trials])
        ]
        for run, places in zip(browsed.runs, browsed.places, strict=True)
    ]
    for start in range(0, len(ids), browsed.detail_clips):
        clips = range(start, min(start + browsed.detail_clips, len(ids)))
        name = f"detail-{start // browsed.detail_clips}"
        yield name, [_detail(browsed, insides, clip, row_of.get(clip)) for clip in clips]


def _detail(browsed: BrowsedClips, insides: list[list[Inside]], clip: int, row: int | None) -> list[Any]:
    """Returns the detail of each run for a clip; `row` is its row in `insides`, None without one."""
    places = [int(of_run[clip]) for of_run in browsed.places]
    return [
        [
            _trial(run.probability[number, place, : run.lengths[place]], inside, row)
            for number, inside in enumerate(trials)
        ]
        if place >= 0
        else None
        for run, place, trials in zip(browsed.runs, places, insides, strict=True)
    ]


def _trial(probability: NDArray[np.float32], inside: Inside, row: int | None) -> dict[str, Any]:
    """Returns the likeliest classes in percent, and attention maps in thousandths, as whole numbers.

    `lines` are the probabilities over time of the classes with the highest peaks. A map has its name, what
    its rows and its columns stand for, and the values.
    """
    order = np.argsort(-probability, axis=1, kind="stable")[:, :TOP_CLASSES]
    percent = np.rint(100 * np.take_along_axis(probability, order, 1)).astype(int)
    top = np.stack((order, percent), axis=-1)
    drawn = np.argsort(-probability.max(0), kind="stable")[:DRAWN_CLASSES]
    lines = [[number, np.rint(100 * probability[:, number]).astype(int)] for number in drawn.tolist()]
    maps = []
    for each, values in inside.attention.items() if row is not None else ():
        rows = 1 if each.rows == "clip" else len(top)
        own = values[row, :rows, : None if each.columns == "cells" else len(top)]
        maps.append([*each, np.rint(1000 * own).astype(int)])
    return {"top": top, "lines": lines, "maps": maps}
