"""`avel report`: writes a static page about runs, which opens from disk without a network."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from avel.errors import ConfigError
from avel.stores.files import check_can_write, disk_bytes, partial_folder, write_text
from avel.stores.runs import library_versions
from avel.text import plural, size
from avel.views.footage import open_footage
from avel.views.reading import HeadRun, read_run
from avel.views.report import clips, numbers
from avel.views.report.folder import INDEX, own_files, put_in_place


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        index: the file to open.
        clips: clips in the browser.
        bytes: size of the folder.
        left_out: contents that the page lacks, and why.
    """

    index: str
    runs: tuple[str, ...]
    clips: int
    bytes: int
    left_out: tuple[str, ...]

    def headline(self) -> str:
        """Returns the result in one line."""
        contents = f"{plural(len(self.runs), 'run')} and {plural(self.clips, 'clip')}"
        return f"{self.index}: a page on {contents}, {size(self.bytes)}"

    def lines(self) -> list[str]:
        """Returns what the page lacks, and why."""
        return list(self.left_out)


def report(
    runs: Sequence[Path | str],
    out: Path | str,
    *,
    store: Path | str | None = None,
    copy_videos: bool = False,
    tsne: bool = True,
) -> Report:
    """Writes a page about finished head runs of one dataset into the folder `out`.

    Until the page is whole, an older report stays as it is.

    Args:
        runs: run folders; a sweep shows as one run for each of its settings.
        out: a new folder, or one that holds an older report and nothing else; its files are replaced.
        store: clip store with frames and audio, where it is not the one that the cache names.
        copy_videos: copy the videos beside the page, so that the folder can move; otherwise they are linked.
        tsne: draw t-SNE panels, which takes some seconds for each run.

    Raises:
        ConfigError: no runs, or `out` holds a file that no report wrote.
        MissingPathError, StoreError: a run, its cache or its weights are gone or damaged.
        StaleError: the runs differ in classes, segments or task, or in a sample.
    """
    if not runs:
        raise ConfigError("no runs to report", hint="avel report RUN... --out DIR")
    target = Path(out).resolve()
    check_can_write(target, folder=True)
    old = own_files(target)
    read = with_unique_names([read_run(path) for path in runs])
    with partial_folder(target) as partial:
        names, count, left_out = _write(read, partial, store, copy_videos, tsne)
        put_in_place(partial, target, old)
    return Report(str(Path(out) / INDEX), names, count, disk_bytes(target), left_out)


def _write(
    read: list[HeadRun], folder: Path, store: Path | str | None, copy_videos: bool, tsne: bool
) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    """Writes the page; returns names of the runs, number of clips, and notes on what is left out."""
    groups = [item for run in read for item in numbers.split_by_setting(run).items()]
    evaluations = {run.run.path: numbers.evaluations_of(run) for run in read}
    shown = [group for _, group in groups]
    browsed = clips.browse(shown)
    footage = open_footage(read[0].cache, store)
    labelled = read[0].split[read[0].known]
    split = str(labelled[0]) if len(labelled) else "test"  # "val" if no test sample has labels
    clouds, notes = numbers.cloud_summary(shown, split, browsed.clip_of_sample) if tsne else ([], [])
    notes += _left_out(shown, browsed, footage.store is None)
    put(folder, "clips", clips.clip_table(browsed, footage, folder, copy_videos=copy_videos))
    for name, part in clips.details(browsed):
        put(folder, name, part)
    task = read[0].task
    summary = {
        "made": {"avel": library_versions()["avel"], "date": time.strftime("%Y-%m-%d")},
        "classes": task.class_names,
        "outputs": task.output_names,
        "tracks": task.tracks,
        "one_label": task.one_label,
        "measure": task.measure,
        "columns": task.columns,
        "metrics": dict(task.metrics),
        "segments": read[0].label.shape[1],
        "segment_seconds": read[0].cache.segment_seconds,
        "trivial_baselines": {
            split: each.trivial_baselines_percent for split, each in evaluations[read[0].run.path].items()
        },
        "runs": [
            numbers.run_summary(
                group, {split: each.groups[name] for split, each in evaluations[group.run.path].items()}
            )
            for name, group in groups
        ],
        "comparisons": numbers.comparisons(browsed.runs),
        "sweeps": numbers.sweep_summaries(read, split),
        "clouds": clouds,
        "detail_clips": browsed.detail_clips,
        "left_out": notes,
    }
    put(folder, "summary", summary)
    for item in (resources.files("avel.views.report") / "static").iterdir():
        (folder / item.name).write_bytes(item.read_bytes())
    return tuple(group.name for group in shown), len(browsed.samples), tuple(notes)


def _left_out(shown: list[HeadRun], browsed: clips.BrowsedClips, without_store: bool) -> list[str]:
    notes = ["frames, audio and videos are left out: the clip store is not there"] if without_store else []
    if len(shown) > len(browsed.runs):
        notes.append(f"the clip browser shows the first {len(browsed.runs)} of {len(shown)} runs")
    if any(len(run.trials) > browsed.trials for run in browsed.runs):
        notes.append(f"the clip browser shows the first {plural(browsed.trials, 'trial')} of each run")
    videos = len({run.video_id[place] for run, place in browsed.first})
    if videos > len(browsed.pictured):
        notes.append(
            f"pictures and attention maps are of {len(browsed.pictured)} of {plural(videos, 'video')}, those "
            f"that {browsed.runs[-1].name} gets most wrong"
        )
    return notes


def with_unique_names(read: list[HeadRun]) -> list[HeadRun]:
    """Makes the names of runs unique by parent folders in front.

    Raises:
        ConfigError: the same run twice.
    """
    paths = [run.run.path.resolve() for run in read]
    if len(set(paths)) < len(paths):
        raise ConfigError("a run is given twice", hint="name each run once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    named = zip(read, paths, strict=True)
    return [replace(run, name="/".join(path.parts[-depth:])) for run, path in named]


def put(folder: Path, name: str, value: Any) -> None:
    """Writes `value` as a script, data/NAME.js, since pages opened from disk may not read JSON files."""
    text = json.dumps(value, default=_plain, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    write_text(folder / "data" / f"{name}.js", f"avel.put({json.dumps(name)}, {safe});\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in the report's data")
