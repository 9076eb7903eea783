"""Writes the events of staged clips as annotations that other code reads: `avel export-annotations`."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.stores.clips import ClipStore
from avel.stores.datasets.activitynet import activitynet_text
from avel.stores.datasets.desed import desed_text
from avel.stores.datasets.media import without_ending
from avel.stores.datasets.sample import SPLITS, Annotated, Sample
from avel.stores.files import check_can_replace, write_text
from avel.text import plural

TEXT_OF: dict[str, Callable[[Iterable[Annotated]], str]] = {
    "activitynet": activitynet_text,
    "desed": desed_text,
}
"""Format -> function that writes clips in it."""
FORMAT_OF = {".json": "activitynet", ".tsv": "desed"}
"""Ending of a file -> format that `auto` takes for it."""


@dataclass(frozen=True)
class ExportedAnnotations:
    """Path and format of an annotations file, and the numbers of clips and events in it.

    Attributes:
        unknown: clips without known events; ActivityNet's JSON lists them without annotations, DESED's
            table cannot express them.
        of_one_modality: events that are only visible or only audible, which neither format can say.
        missing: ids of videos that are not staged, whose length is not known; they are left out.
    """

    path: str
    format: str
    clips: int
    events: int
    unknown: int
    of_one_modality: int
    missing: tuple[str, ...]

    def headline(self) -> str:
        """Returns the result in one line."""
        contents = f"{plural(self.events, 'event')} of {plural(self.clips, 'clip')}"
        unknown = f", {self.unknown:,} without known events" if self.unknown else ""
        count = plural(self.of_one_modality, "event")
        one = f"; {count} only visible or only audible, which the file does not say"
        missing = f"; {plural(len(self.missing), 'clip')} not staged and left out" if self.missing else ""
        return f"{self.path}: {contents}{unknown}{one if self.of_one_modality else ''}{missing}"


def export_annotations(
    store: Path | str,
    out: Path | str,
    *,
    format: str = "auto",
    split: str | None = None,
    overwrite: bool = False,
) -> ExportedAnnotations:
    """Writes the samples of a clip store, all or those of one split, with their events.

    >>> export_annotations("ave.zarr", "annotations.json", split="train").events  # doctest: +SKIP
    3339

    Args:
        out: .json for ActivityNet's JSON, .tsv for DESED's table, unless `format` names one of them.
        split: train, val or test; DESED's table has no column for it, so that it takes one split.
        overwrite: replace a file that is there.

    Raises:
        MissingPathError: no such store.
        ConfigError: the ending of no format, or samples that do not fit one file: several splits in
            DESED's table, a video in several splits, for DESED an id with a folder or an ending.
        UnknownNameError: no such format or split.
        StoreError: no sample to write, or a file is there.
    """
    path = Path(out)
    kind = FORMAT_OF.get(path.suffix.lower(), "") if format == "auto" else format
    if not kind:
        raise ConfigError(f"{path}: ends in none of {', '.join(FORMAT_OF)}", hint="name the --format")
    if kind not in TEXT_OF:
        raise UnknownNameError("format", kind, ["auto", *TEXT_OF])
    if split is not None and split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    check_can_replace(path, overwrite)
    opened = ClipStore.open(store)
    staged = set(opened.staged)
    chosen = [sample for sample in opened.dataset.samples if split in (None, sample.split)]
    there = [sample for sample in chosen if sample.video_id in staged]
    if not there:
        raise StoreError(
            f"{store}: no staged sample{f' of {split}' if split else ''}", hint=f"avel inspect {store}"
        )
    _check(there, kind, store)
    clips = _clips(there, opened)
    events = [event for clip in clips for event in clip.events or ()]
    write_text(path, TEXT_OF[kind](clips))
    return ExportedAnnotations(
        path=str(path),
        format=kind,
        clips=len(clips),
        events=len(events),
        unknown=sum(clip.events is None for clip in clips),
        of_one_modality=sum(event.modality != "both" for event in events),
        missing=tuple(dict.fromkeys(each.video_id for each in chosen if each.video_id not in staged)),
    )


def _check(samples: Sequence[Sample], kind: str, store: Path | str) -> None:
    """Raises ConfigError where one file of the format `kind` cannot hold these samples."""
    splits = sorted({sample.split for sample in samples})
    if kind == "desed" and len(splits) > 1:
        raise ConfigError(
            f"{store}: samples of {', '.join(filter(None, splits))}, and DESED has a table for each split",
            hint=f"--split {splits[-1]}, for example",
        )
    others = [name for name in (each.video_id for each in samples) if without_ending(name.strip()) != name]
    if kind == "desed" and others:
        raise ConfigError(
            f"{store}: DESED names videos without folder and ending, so {others[0]!r} would read back as "
            f"{without_ending(others[0].strip())!r}",
            hint="write ActivityNet's JSON, which keeps ids: name a file that ends in .json",
        )
    split_counts = Counter(video_id for video_id, _ in {(each.video_id, each.split) for each in samples})
    video_id, count = split_counts.most_common(1)[0]
    if count > 1:
        where = sorted(each.split or "no split" for each in samples if each.video_id == video_id)
        raise ConfigError(
            f"{store}: video {video_id} is in {' and in '.join(dict.fromkeys(where))}; a file has it once",
            hint="write the splits one by one, with --split",
        )


def _clips(samples: Sequence[Sample], store: ClipStore) -> list[Annotated]:
    """Returns the videos with the events of their samples, since AVE has several samples of some videos."""
    samples_of: dict[str, list[Sample]] = {}
    for sample in samples:
        samples_of.setdefault(sample.video_id, []).append(sample)
    seconds = store.entries.by_id("valid_seconds")
    return [
        Annotated(
            video_id,
            round(seconds[video_id], 3),
            None
            if any(sample.events is None for sample in own)
            else tuple(event for sample in own for event in sample.events or ()),
            own[0].split,
        )
        for video_id, own in samples_of.items()
    ]
