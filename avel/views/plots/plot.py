"""`avel plot`: draws one picture of a run for a paper."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from avel.errors import StoreError, UnknownNameError
from avel.heads.tasks.task import Block, Task
from avel.stores.runs import Run
from avel.text import plural
from avel.views.embedding import embed
from avel.views.footage import open_footage
from avel.views.plots.charts import (
    draw_accuracy,
    draw_clouds,
    draw_confusion,
    draw_curves,
    draw_sweep,
)
from avel.views.plots.style import SERIES, figure, picture_path, save
from avel.views.plots.timeline import Bar, Clip, draw_clip
from avel.views.reading import HeadRun, read_run
from avel.views.series import curves_of, runs_below, sweep_of

PlotKind = Literal["confusion", "curves", "tsne", "sweep", "timeline"]
KINDS: tuple[PlotKind, ...] = get_args(PlotKind)
CLASSES_SHOWN = len(SERIES)
"""Most classes in colour in a t-SNE."""


@dataclass(frozen=True)
class Picture:
    """A picture that was written: its kind, path, and contents in words."""

    kind: str
    out: str
    shows: str

    def headline(self) -> str:
        """Returns the result in one line."""
        return f"{self.out}: {self.shows}"


def plot(
    run: Path | str,
    kind: str,
    out: Path | str,
    *,
    split: str = "test",
    setting: str | None = None,
    video: str | None = None,
    store: Path | str | None = None,
) -> Picture:
    """Draws one picture of a run into `out`, whose ending (.png, .svg, .pdf) is its format.

    Args:
        run: a run folder; for `sweep` the run of a sweep, or a folder of runs that differ in a setting.
        kind: confusion (Figure 5), sweep (6), tsne (7), timeline (8), or curves.
        split: split whose segments are shown.
        setting: setting on the axis of a `sweep`; by default the only one that was swept.
        video: clip of the timeline; by default one that is partly right and holds background.
        store: clip store with the frames and audio, where it is not the one that the cache names.

    Raises:
        UnknownNameError: no such kind.
        ConfigError: `out` is not a picture, or `setting` was not swept.
        MissingPathError, StoreError: what is to be drawn is not there.
    """
    target = picture_path(out)
    if kind not in KINDS:
        raise UnknownNameError("plot", kind, KINDS)
    draw: dict[str, Callable[[], tuple[Figure, str]]] = {
        "confusion": lambda: _confusion(read_run(run), split),
        "curves": lambda: _curves(Run.open(run)),
        "tsne": lambda: _tsne(read_run(run), split),
        "sweep": lambda: _sweep_chart(Path(run), split, setting),
        "timeline": lambda: _timeline(read_run(run), split, video, store),
    }
    fig, shows = draw[kind]()
    save(fig, target)
    return Picture(kind, str(target), shows)


def demo_picture(runs: Mapping[str, Path | str], out: Path | str, *, shown: tuple[str, ...]) -> Picture:
    """Draws a test clip with some runs' predictions, beside all runs' accuracy and the trivial baselines.

    Args:
        runs: name in the picture -> run.
        shown: names of the runs whose predictions are drawn; the last of them chooses the clip.
    """
    target = picture_path(out)
    read = {name: read_run(path) for name, path in runs.items()}
    main = read[shown[-1]]
    place = choose_clip(main, "test")
    clip = clip_of({name: read[name] for name in shown}, int(main.number[place]))
    with figure(12.5, 3.9) as fig:
        left, right = fig.subfigures(1, 2, squeeze=False, width_ratios=(2.6, 1), wspace=0.03)[0]
        draw_clip(left, clip)
        axes = right.subplots()
        scores = [each.score("test") for each in read.values()]
        draw_accuracy(axes, list(read), scores, main.trivial_baselines("test"))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    save(fig, target)
    return Picture("demo", str(target), f"{main.video_id[place]} and {len(read)} runs on test")


def clip_of(runs: dict[str, HeadRun], sample: int, store: Path | str | None = None) -> Clip:
    """Returns a sample's clip with its labels and the predictions of each run's first trial, by name."""
    first = next(iter(runs.values()))
    footage = open_footage(first.cache, store)
    place = int(np.flatnonzero(first.number == sample)[0])
    task, video_id, label = first.task, first.video_id[place], first.label[place]
    bars = named_bars("label", task, task.blocks(label)) if first.known[place] else []
    for name, run in runs.items():
        at = np.flatnonzero(run.number == sample)
        if not len(at):
            raise StoreError(
                f"{run.run.path}: no predictions of sample {sample}", hint="compare runs of one cache"
            )
        bars += named_bars(name, task, task.blocks(run.prediction[0, int(at[0])], label))
    return Clip(
        title=f"{video_id}   {task.title(label)}",
        segments=int(first.lengths[place]),
        segment_seconds=first.cache.segment_seconds,
        bars=tuple(bars),
        frames=footage.frames(video_id),
        log_mel=footage.log_mel(video_id),
    )


def named_bars(name: str, task: Task, blocks: Sequence[tuple[Block, ...]]) -> list[Bar]:
    """Returns a bar for each track of the task."""
    pairs = zip(task.tracks, blocks, strict=True)
    return [Bar(f"{name}, {track}" if track else name, own) for track, own in pairs]


def choose_clip(run: HeadRun, split: str) -> int:
    """Returns the index of the sample that is nearest to 45 % background and a score of 85 %."""
    places = run.known_places_of(split)
    score = run.task.sample_scores(run.prediction[0, places], run.label[places])
    shown = run.task.shown_classes(run.label[places])
    background = (shown == len(run.task.categories)).sum(1) / run.lengths[places]
    distance = np.abs(score - 0.85) + np.abs(background - 0.45)
    return int(places[int(distance.argmin())])


def _confusion(run: HeadRun, split: str) -> tuple[Figure, str]:
    names = run.task.class_names
    side = 3.2 + 0.2 * len(names)
    with figure(side + 1.2, side) as fig:
        draw_confusion(fig, run.confusion(split), names)
    return fig, f"segments of {split} by label and prediction, summed over {plural(len(run.trials), 'trial')}"


def _curves(run: Run) -> tuple[Figure, str]:
    panels = curves_of(run)
    if not panels:
        raise StoreError(
            f"{run.path}: metrics.jsonl holds no loss and no score", hint="wait for the first epoch"
        )
    with figure(3.6 * len(panels), 2.8) as fig:
        draw_curves(fig, panels)
    return fig, f"{'; '.join(panels)}; by epoch"


def _sweep_chart(path: Path, split: str, setting: str | None) -> tuple[Figure, str]:
    sweep = sweep_of(runs_below(path), split, setting)
    with figure(max(4.2, 1.6 + 0.45 * len(sweep.values)), 3.2) as fig:
        draw_sweep(fig, sweep)
    return fig, f"{sweep.measure} on {split} at {sweep.setting} {', '.join(sweep.values)}"


def _tsne(run: HeadRun, split: str) -> tuple[Figure, str]:
    embedding = embed(run, split)
    if embedding.left_out:
        title, why = next(iter(embedding.left_out.items()))
        raise StoreError(
            f"{run.run.path}: no t-SNE of {title} on {split}: {why}",
            hint=f"avel report {shlex.quote(str(run.run.path))} --out DIR shows the panels that can be drawn",
        )
    shown = most_frequent(embedding.classes, len(run.task.categories))
    with figure(3.4 * len(embedding.points), 4.0) as fig:
        draw_clouds(fig, embedding, run.task.class_names, shown)
    return fig, f"{len(embedding.classes)} segments of {split}"


def most_frequent(classes: NDArray[np.int64], background: int) -> list[int]:
    """Returns the event classes with the most segments, CLASSES_SHOWN at most."""
    counts = np.bincount(classes, minlength=background + 1)[:background]
    order = np.argsort(-counts, kind="stable")[:CLASSES_SHOWN]
    return [int(number) for number in order if counts[number]]


def _timeline(run: HeadRun, split: str, video: str | None, store: Path | str | None) -> tuple[Figure, str]:
    place = choose_clip(run, split) if video is None else run.place_of(video)
    clip = clip_of({run.name: run}, int(run.number[place]), store)
    tall = 1.2 + 0.9 * (clip.frames is not None) + 0.8 * (clip.log_mel is not None)
    with figure(8.6, tall + 0.4 * sum(bar.lanes for bar in clip.bars)) as fig:
        draw_clip(fig, clip)
    return fig, f"{run.video_id[place]} with its labels and predictions"
