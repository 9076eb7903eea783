"""Makes a feature cache of features of any source: reads, aligns and checks them against a dataset."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from avel.errors import ConfigError, DatasetError, MissingPathError
from avel.grid import Grid
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.event_table import TABLE_ENDINGS, read_table_dataset
from avel.stores.datasets.formats import PLAIN, find_format, read_dataset
from avel.stores.feature_adding import add_features, open_target
from avel.stores.feature_align import (
    Aligned,
    GivenFeatures,
    Target,
    check_features,
    findings_of,
    provenance_of,
)
from avel.stores.feature_files import open_features
from avel.stores.feature_samples import samples_of_videos
from avel.stores.features import FeatureCache, write_features
from avel.stores.hdf5 import ArrayLike
from avel.stores.named_features import FeatureModality, NewFeatures
from avel.stores.runs import library_versions
from avel.text import listed, plural


@dataclass(frozen=True)
class Imported:
    """Result of an import; `missing` counts the samples, and the videos of no sample, that were left out."""

    cache: str
    digest: str
    samples: int
    videos: int
    missing: int
    arrays: dict[str, tuple[int, ...]]
    findings: tuple[str, ...]

    @classmethod
    def of(cls, cache: FeatureCache, findings: Sequence[str]) -> Self:
        """Returns the result of an import that has written this cache."""
        counts = len(cache.samples), len(cache), len(cache.missing)
        return cls(str(cache.path), cache.digest, *counts, cache.shapes, tuple(findings))

    def headline(self) -> str:
        """Returns the result in one line."""
        contents = f"{listed(self.arrays)} of {plural(self.samples, 'sample')}"
        lost = f", {self.missing:,} without features" if self.missing else ""
        return f"{self.cache}: {contents} in {plural(self.videos, 'clip')}{lost}"

    def lines(self) -> list[str]:
        """Returns the remarks on the files."""
        return [f"note: {each}" for each in self.findings]


@dataclass(frozen=True)
class UsableFeatures:
    """Features of each modality that can be used.

    Attributes:
        aligned: modality -> features of the videos that all modalities have.
        reasons: id of each other video -> why it is left out.
        findings: what was found, a line each.
        provenance: modality -> what a cache says of it.
    """

    aligned: dict[FeatureModality, Aligned]
    reasons: dict[str, str]
    findings: tuple[str, ...]
    provenance: dict[FeatureModality, dict[str, Any]]


def import_given(
    given: Mapping[FeatureModality, GivenFeatures],
    cache: Path,
    dataset: Dataset,
    *,
    segments: int | None,
    segment_seconds: float,
    maps_dtype: Literal["float16", "float32"],
    leave_out: bool,
) -> Imported:
    """Writes a new cache: audio features become f_a and cnn_a, visual ones f_v and cnn_v, maps also `maps`.

    Raises:
        ConfigError: a modality is missing, or audio features are maps.
        DatasetError, StoreError: features that cannot be used.
    """
    absent = [name for name in ("audio", "visual") if name not in given]
    if absent:
        raise ConfigError(
            f"{cache}: a new cache needs audio and visual features, and there are no {absent[0]} ones",
            hint=f"name them with --{absent[0]}",
        )
    length = dataset.segments(segment_seconds) if segments is None else segments
    target = target_of(dataset, length, segment_seconds)
    with ExitStack() as stack:
        usable = find_features(stack, given, target, leave_out)
        audio, visual = usable.aligned["audio"], usable.aligned["visual"]
        if len(audio.tail) > 1:
            raise ConfigError(
                f"{given['audio'].path}: audio features are vectors, these are maps",
                hint="save their means over the cells, (n, D) for each clip",
            )
        video_ids = audio.target.video_ids
        arrays: dict[str, ArrayLike] = {"f_a": audio, "f_v": visual, "cnn_a": audio, "cnn_v": visual}
        if len(visual.tail) > 1:
            mean, maps = replace(visual, mean=True), replace(visual, dtype=np.dtype(maps_dtype).type)
            arrays |= {"f_v": mean, "cnn_v": mean, "maps": maps}
        samples, missing = samples_of_videos(dataset, video_ids, usable.reasons)
        written = write_features(
            cache,
            video_ids=video_ids,
            categories=dataset.categories,
            samples=samples,
            arrays=arrays,
            segment_seconds=segment_seconds,
            missing=missing,
            lengths=np.array(audio.target.lengths, np.int64),
            provenance={
                "encoder": {"kind": "imported"} | usable.provenance,
                "findings": list(usable.findings),
                "versions": library_versions(),
            },
        )
    return Imported.of(written, usable.findings)


def add_given(
    given: Mapping[FeatureModality, GivenFeatures],
    path: Path,
    *,
    maps_dtype: Literal["float16", "float32"],
    leave_out: bool,
    overwrite: bool,
) -> Imported:
    """Adds features to the cache at `path`, for all of its videos, under the names that `given` has.

    Args:
        leave_out: pass over ids that no video of the cache has.
        overwrite: replace features of the same names.

    Raises:
        ConfigError: features without a name, or with one that `open_target` refuses.
        DatasetError, StoreError: features that cannot be used, or that a video lacks.
    """
    names = {modality: each.name or "" for modality, each in given.items()}
    for modality, name in names.items():
        if not name:
            raise ConfigError(f"{modality} features without a name", hint=f"name them with --{modality}-name")
    cache = open_target(path, names.values(), overwrite)
    with ExitStack() as stack:
        usable = find_features(stack, given, target_of_cache(cache), leave_out)
        new = {}
        for modality, values in usable.aligned.items():
            if len(values.tail) > 1:
                values = replace(values, dtype=np.dtype(maps_dtype).type)
            new[names[modality]] = NewFeatures(modality, values, usable.provenance[modality])
        added = add_features(path, new, overwrite=overwrite)
    return Imported.of(added, usable.findings)


def find_features(
    stack: ExitStack, given: Mapping[FeatureModality, GivenFeatures], target: Target, leave_out: bool
) -> UsableFeatures:
    """Opens, aligns and checks features; the files stay open until `stack` closes.

    Raises:
        DatasetError: as for `findings_of`, or no clip is left.
        StoreError, MissingPathError: a file that cannot be read, or is not there.
    """
    checked = {
        modality: check_features(stack.enter_context(open_features(each.path, each.key)), target, each.timing)
        for modality, each in given.items()
    }
    findings = findings_of(checked, leave_out)
    reasons: dict[str, list[str]] = {}
    for modality, each in checked.items():
        for name, problem in each.problems.items():
            why = ", ".join(filter(None, (problem.kind, problem.detail)))
            reasons.setdefault(name, []).append(f"{modality}: {why}")
    kept = [row for row, name in enumerate(target.video_ids) if name not in reasons]
    if not kept:
        raise DatasetError("; ".join(findings), hint="no clip is left; check the files and options")
    return UsableFeatures(
        {name: each.aligned.take(kept) for name, each in checked.items()},
        {name: "; ".join(why) for name, why in reasons.items()},
        tuple(findings),
        {name: provenance_of(each, checked[name].aligned.files) for name, each in given.items()},
    )


def target_of(dataset: Dataset, segments: int, segment_seconds: float) -> Target:
    """Returns all videos of a dataset as the target of an import, with the lengths that it states.

    Raises:
        DatasetError: clips have lengths of their own, and the annotations do not state that of every clip.
    """
    rows: dict[str, int] = {}
    for row, sample in enumerate(dataset.samples):
        rows.setdefault(sample.video_id, row)
    videos = tuple(video.video_id for video in dataset.videos)
    grid = Grid.without_frames(segments, segment_seconds)
    stated = dataset.stated_lengths(grid, [dataset.samples[row] for row in rows.values()])
    length_of = {} if stated is None else dict(zip(rows, stated.tolist(), strict=True))
    lengths = tuple(length_of.get(name, segments) for name in videos)
    return Target(videos, rows, len(dataset.samples), segments, segment_seconds, lengths)


def target_of_cache(cache: FeatureCache) -> Target:
    """Returns the videos of a cache as the target of an import; a sample's row is its number."""
    rows: dict[str, int] = {}
    for number, video in zip(cache.samples.number.tolist(), cache.samples.video.tolist(), strict=True):
        rows.setdefault(cache.video_ids[video], number)
    grid = cache.grid_segments, cache.segment_seconds, tuple(cache.lengths.tolist())
    return Target(cache.video_ids, rows, cache.annotation_rows, *grid, of_cache=True)


def dataset_of(
    dataset: Dataset | Path | str | None,
    annotations: Path | str | None,
    format: str,
    settings: Mapping[str, Any],
    beside: Path | None = None,
) -> Dataset:
    """Returns the dataset that features belong to; a table of events alone is one, too.

    Args:
        beside: folder of the features, which may hold the annotations.

    Raises:
        MissingPathError: neither dataset nor annotations are given, and none lie beside the features.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if dataset is None and annotations is not None:
        table = Path(annotations)
        if table.suffix.lower() in TABLE_ENDINGS and format == "auto":
            return read_table_dataset(table)
        dataset = beside or table.parent
    elif dataset is None and beside is not None and (format != "auto" or find_format(beside) != PLAIN):
        dataset = beside
    if dataset is None:
        raise MissingPathError(
            f"{beside or 'features'}: no annotations, and features cannot be used without labels and splits",
            hint="give --dataset FOLDER, or --annotations FILE with a table of events",
        )
    return read_dataset(dataset, annotations, format=format, **settings)
