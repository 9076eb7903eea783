"""Finds the code of a run's heads again, which may come from another package or from a file."""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avel.config import option
from avel.digests import digest_of
from avel.errors import StoreError
from avel.heads.config import HEADS, HeadConfig, TrainConfig
from avel.heads.models.head import Head, code_digest
from avel.progress import note
from avel.stores.runs import HEAD_FILES, Run, read_config


def keep_files(run: Run, heads: Iterable[type[Head]]) -> None:
    """Copies the files that heads came from (`--head FILE`) into the run, each named after its head."""
    for name in (head.Config.name for head in heads):
        if (origin := HEADS.origin(name)).endswith(".py"):
            (run.path / HEAD_FILES).mkdir(exist_ok=True)
            shutil.copyfile(origin, copy_of_file(run, name))


def copy_of_file(run: Run, name: str) -> Path:
    """Returns the path of a head's file in a run: named after the head, for files may share a name."""
    return run.path / HEAD_FILES / f"{quote(name, safe='')}.py"


def read_train_config(values: Mapping[str, Any], where: object) -> TrainConfig:
    """Returns recorded settings of training; those of a head that is not installed are taken as they are.

    So the figures of a run can be read without its head.

    Raises:
        StoreError: a setting is not known here, or has another type.
    """
    name = values.get("head")
    if not isinstance(name, str) or name in HEADS or not isinstance(values.get(name), dict):
        return read_config(TrainConfig, "train-head", dict(values), where)
    rest = {key: value for key, value in values.items() if key not in ("head", name)}
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in values[name].items()}
    fields = [
        (key, type(value), option(value, "Setting of a head that is not installed."))
        for key, value in own.items()
    ]
    stand_in = dataclasses.make_dataclass(
        "Config", fields, bases=(HeadConfig,), frozen=True, namespace={"name": name}
    )
    return dataclasses.replace(read_config(TrainConfig, "train-head", rest, where), head=stand_in())


def find_head(run: Run, name: str, origin: str, digest: str) -> None:
    """Registers a run's head if it is not yet; runs its file only if the user owns it and it is unchanged.

    Notes where the code of an installed head has changed since the run was trained.

    Args:
        origin: where the head came from, as `HEADS.origin` says.
        digest: its `code_digest` when the run was trained; before the "+" that of its own file.

    Raises:
        StoreError: the head is not installed, or its file must not be run; says where it came from.
    """
    if name not in HEADS and not origin.endswith(".py"):
        raise StoreError(
            f"{run.path}: its head {name!r} is not installed; it came from {origin}",
            hint="pip install that package, or import that module first",
        )
    if name not in HEADS:
        if problem := _why_not_run(Path(origin), digest.partition("+")[0]):
            raise StoreError(
                f"{run.path}: its head {name!r} came from the file {origin}, which {problem}",
                hint=f"{copy_of_file(run, name)} is the file as it was; put it back there",
            )
        HEADS.named(origin)
    if code_digest(HEADS[name]) != digest:
        note(f"{run.path}: the code of head {name!r} has changed since this run was trained")


def _why_not_run(file: Path, digest: str) -> str:
    """Says why a file that a run names must not be run, "" if it may be.

    A run may come from a stranger, so the file has to be the user's own, and what the run was trained with.
    """
    if not file.is_file():
        return "is not there"
    if file.resolve() != file:
        return "is a link or a relative path"
    if file.stat().st_uid != os.getuid():
        return "is not yours"
    return "" if digest_of(file.read_text()) == digest else "has changed since"
