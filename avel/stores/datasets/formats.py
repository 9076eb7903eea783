"""Registers dataset formats, and finds the format of a folder."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from avel.config import ComponentConfig, option, resolve, settings_of
from avel.errors import ConfigError, DatasetError, MissingPathError, UnknownNameError
from avel.registry import Registry
from avel.stores.datasets.dataset import Dataset
from avel.stores.files import path_text
from avel.stores.kinds import kind_of, not_a

PLAIN = "folder"
"""Format of a folder that matches no other."""
C = TypeVar("C")

FORMATS: Registry[Any] = Registry(
    "dataset format",
    modules={
        "activitynet": "avel.stores.datasets.activitynet",
        "ave": "avel.stores.datasets.ave",
        "ave-pm": "avel.stores.datasets.ave_pm",
        "desed": "avel.stores.datasets.desed",
        "llp": "avel.stores.datasets.llp",
        "ov-avebench": "avel.stores.datasets.ov_avebench",
        "vggsound-avel": "avel.stores.datasets.vggsound_avel",
        PLAIN: "avel.stores.datasets.folder",
    },
    group="avel.dataset_formats",
)


@dataclass(frozen=True)
class LengthConfig(ComponentConfig):
    """Settings of formats whose clips may have lengths of their own."""

    longest_seconds: float | None = option(
        None,
        "Clips keep lengths of their own, up to this many seconds; 0 pads all to one length.",
        low=0,
        shown="as the annotations say, 0 where they do not",
    )


class DatasetFormat(ABC, Generic[C]):
    """Base of all formats: one file each, registered under the name that `--format` takes.

    A format with settings has a nested `Config` derived from ComponentConfig; `self.config` is an instance of
    it, or None for a format without settings.

    Attributes:
        annotations_ending: ending of annotation files that alone tells the format, such as ".json"; "" for
            none. With one, `Config` needs a setting `annotations`.
    """

    annotations_ending: ClassVar[str] = ""

    def __init__(self, config: C) -> None:
        self.config = config

    @staticmethod
    @abstractmethod
    def matches(folder: Path) -> bool:
        """Returns True if the names of its files say that the folder has this format."""

    @abstractmethod
    def read(self, folder: Path) -> Dataset:
        """Returns the dataset in the folder, as `make_dataset` has checked it.

        Video files that lie there and that the dataset does not name are its `extra_files`.

        Raises:
            DatasetError: annotations that cannot be used, with file, line and value.
        """


def read_dataset(
    path: Path | str, annotations: Path | str | None = None, *, format: str = "auto", **settings: Any
) -> Dataset:
    """Returns the dataset at `path`.

    >>> read_dataset("videos", "events.csv")             # doctest: +SKIP
    >>> read_dataset("clips", format="mine", channel=2)  # doctest: +SKIP

    Args:
        annotations: CSV or Parquet of events in a plain folder of videos, ActivityNet's JSON, DESED's TSV.
        format: name of a format. "auto" chooses by the ending of `annotations`, or without them by the files
            in the folder; where nothing fits, a plain folder of videos.
        settings: settings of the format, by name.

    Raises:
        MissingPathError: `path` or `annotations` is not there.
        StoreError: `path` is a file, a clip store or a run.
        ConfigError: `path` is a URL, or settings of a format that has none.
        UnknownNameError: no such format, or no such setting of it.
        DatasetError: two formats match; annotations that contradict themselves, with their line.
    """
    root = Path(path)
    if not root.is_dir() and re.match(r"[a-z][a-z0-9]+:/", str(root)):  # a Path has lost one of the slashes
        raise ConfigError(
            f"{path}: videos are read from a folder, not from a URL; only STORE may be one",
            hint="copy the videos to a disk, or mount the bucket as a folder on every machine that decodes",
        )
    if not root.is_dir():
        raise not_a("folder of videos", root, "give the folder that holds the videos")
    if kind_of(root) in ("store", "run"):
        raise not_a("folder of videos", root, "")
    if annotations is not None:
        settings["annotations"] = annotations
    name = format
    if format == "auto":
        name = find_format(root) if annotations is None else _format_of(Path(annotations))
    if name not in FORMATS:
        raise UnknownNameError(FORMATS.kind, name, ["auto", *FORMATS])
    found = FORMATS[name]
    config_type = getattr(found, "Config", None)
    if config_type is None and settings:
        raise ConfigError(
            f"dataset format {name!r} has no settings, but was given {', '.join(settings)}",
            hint="leave out --format-set and --annotations, or choose another --format",
        )
    if annotations is not None and "annotations" not in {each.name for each in settings_of(config_type)}:
        raise ConfigError(
            f"dataset format {name!r} takes no --annotations",
            hint="leave it out, or choose another --format",
        )
    source = f"--format-set of {name}"
    config = config_type and resolve(config_type, "extract", options=settings, options_from=source)
    dataset: Dataset = replace(found(config).read(root), format=name, format_settings=_texts(config))
    if isinstance(config, LengthConfig) and config.longest_seconds is not None:
        dataset = replace(dataset, longest_seconds=config.longest_seconds or None)
    return dataset


def _texts(config: ComponentConfig | None) -> tuple[str, ...]:
    """Returns the settings of a format that are not None, as `--format-set` takes them."""
    values = {} if config is None else {each.key: each.of(config) for each in settings_of(config)}
    return tuple(path_text(f"{key}={value}") for key, value in values.items() if value is not None)


def folder_with(files: Sequence[str], root: Path, *below: str) -> Path | None:
    """Returns the first of `root` and the folders `below` it that has all `files`; None where none has."""
    folders = (root, *(root / name for name in below))
    return next((each for each in folders if all((each / name).is_file() for name in files)), None)


def only_file(found: Sequence[Path], folder: Path, wanted: str, option: str) -> Path:
    """Returns the one file of annotations that was found in a folder.

    Args:
        wanted: names that such a file may have, for the error.
        option: the option that names a file, up to its value: "--annotations ".

    Raises:
        MissingPathError: there is none.
        DatasetError: there are several.
    """
    if not found:
        raise MissingPathError(f"{folder}: holds no {wanted}", hint=f"name it with {option}FILE")
    if len(found) > 1:
        raise DatasetError(
            f"{folder}: holds several: {', '.join(str(path.relative_to(folder)) for path in found)}",
            hint=f"choose one, for example with {option}{found[0]}",
        )
    return found[0]


def _format_of(annotations: Path) -> str:
    """Returns the name of the format whose annotations have the ending of this file; PLAIN if none has."""
    ending = annotations.suffix.lower()
    return next((name for name in FORMATS if ending and FORMATS[name].annotations_ending == ending), PLAIN)


def find_format(root: Path) -> str:
    """Returns the name of the format that matches the folder; PLAIN where none does.

    Raises:
        DatasetError: two formats match.
    """
    matching = [name for name in FORMATS if name != PLAIN and FORMATS[name].matches(root)]
    if len(matching) > 1:
        raise DatasetError(
            f"{root}: may be read as {' or as '.join(matching)}", hint=f"--format {matching[0]}, for example"
        )
    return matching[0] if matching else PLAIN
