"""A run folder: what was asked (config.toml), of what (run.json), what came (metrics.jsonl, results.json).

Weights are safetensors, predictions Parquet; the stage that makes them writes them beside these files.
"""

from __future__ import annotations

import json
import platform
import re
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from avel.config import as_dict, flat, resolve, settings_of, to_toml
from avel.errors import MissingPathError, StoreError
from avel.stores.files import LOCK, as_write_error, write_json, write_text
from avel.text import as_plain, from_plain

FORMAT = 2
R = TypeVar("R")
Kind = Literal["pretrain", "heads"]
STAGES: dict[Kind, str] = {"pretrain": "pretrain", "heads": "train-head"}
"""Kind of run -> the command that makes it, which also names its table in config.toml."""
UNFINISHED = re.compile(re.escape(LOCK) + r"|\.(config\.toml|run\.json)\..*\.partial")
"""Names of a lock and of what a kill leaves of the first two files."""
LIBRARIES = ("avel", "torch", "torchvision", "torchaudio", "numpy", "av", "zarr", "h5py")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that change numbers."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Run:
    """One run folder, open for reading and appending."""

    path: Path
    record: dict[str, Any]

    @classmethod
    def create(cls, path: Path | str, kind: Kind, config: Any, *, inputs: dict[str, Any]) -> Run:
        """Begins a run, or goes on with the one that has the same kind, config and inputs.

        Fields of the config that change no numbers (devices, workers, what is kept when) may differ.

        Raises:
            StoreError: `path` holds another run or other files.
        """
        path = Path(path)
        record: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "config": as_dict(config),
            "inputs": inputs,
        }
        if (path / "run.json").is_file():
            free = {setting.key for setting in settings_of(config) if not setting.numeric}
            return _same_run(cls.open(path), record, free)
        toml = to_toml(config, STAGES[kind])
        if path.exists() and not _just_begun(path, toml):
            raise StoreError(f"{path}: exists and is no avel run", hint="choose another folder")
        write_text(path / "config.toml", toml)
        record |= {"versions": versions(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_json(path / "run.json", record)
        return cls(path, record)

    @classmethod
    def open(cls, path: Path | str, kind: Kind | None = None) -> Run:
        """The run at `path`.

        Raises:
            MissingPathError: there is none.
            StoreError: it is of another kind or format.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise MissingPathError(f"{path}: no avel run", hint="avel pretrain or avel train-head makes one")
        record = json.loads((path / "run.json").read_text())
        if record.get("format") != FORMAT:
            raise StoreError(f"{path}: run format {record.get('format')}, this avel reads {FORMAT}")
        if kind is not None and record["kind"] != kind:
            raise StoreError(
                f"{path}: made by avel {STAGES[record['kind']]}, need one made by avel {STAGES[kind]}"
            )
        return cls(path, record)

    @property
    def kind(self) -> Kind:
        """Which stage made it."""
        return self.record["kind"]  # type: ignore[no-any-return]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run was made from: paths and digests."""
        return dict(self.record["inputs"])

    def config(self, config_type: type[Any]) -> Any:
        """The resolved config, as the dataclass it was saved from."""
        return resolve(config_type, STAGES[self.kind], file=self.path / "config.toml")

    def log(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl.

        Raises:
            WriteError: the place does not take it.
        """
        path = self.path / "metrics.jsonl"
        with as_write_error(path), path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that was cut off by a kill is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

    def rewind(self, keep: list[dict[str, Any]]) -> None:
        """Replaces metrics.jsonl by `keep`: what had been logged when the checkpoint was written."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in keep))

    def finish(self, results: Any) -> None:
        """Writes results.json, the mark of a finished run, from a dataclass of results."""
        write_json(self.path / "results.json", as_plain(results))

    @property
    def finished(self) -> bool:
        """Whether results.json is there."""
        return (self.path / "results.json").is_file()

    @property
    def results(self) -> dict[str, Any]:
        """What results.json holds, as plain values to be shown; `read_results` gives them typed.

        Raises:
            StoreError: the run is not finished, or the file is no JSON.
        """
        if not self.finished:
            raise StoreError(
                f"{self.path}: not finished",
                hint=f"give the same avel {STAGES[self.kind]} command again to go on",
            )
        try:
            return json.loads((self.path / "results.json").read_text())  # type: ignore[no-any-return]
        except ValueError as error:
            raise self._damaged(str(error)) from None

    def read_results(self, kind: type[R]) -> R:
        """Reads what `finish` wrote, as the dataclass that it was.

        Raises:
            StoreError: the run is not finished, or a value in the file is missing or of another type.
        """
        plain = self.results
        try:
            return from_plain(kind, plain)  # type: ignore[no-any-return]
        except ValueError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            f"{self.path / 'results.json'}: {what}",
            hint=f"delete the file and give the same avel {STAGES[self.kind]} command again",
        )


def _just_begun(path: Path, toml: str) -> bool:
    """Whether the folder is empty, or as a kill leaves it before run.json: with this config.toml at most."""
    if not path.is_dir():
        return False
    files = [item for item in path.iterdir() if not UNFINISHED.fullmatch(item.name)]
    return all(item.name == "config.toml" and item.read_text() == toml for item in files)


def _same_run(found: Run, wanted: dict[str, Any], free: set[str]) -> Run:
    """The run, if it is the one wanted, `free` settings aside; inputs that moved are noted where they are."""
    if found.kind != wanted["kind"]:
        raise StoreError(f"{found.path}: holds a {found.kind} run", hint="choose another folder")
    places = {key for key in wanted["inputs"] if f"{key}_digest" in wanted["inputs"]}
    for part, ignored in (("config", free), ("inputs", places)):
        old, new = flat(found.record[part]), flat(wanted[part])
        names = sorted(key for key in {*old, *new} - ignored if old.get(key) != new.get(key))
        if names:
            shown = ", ".join(f"{key} was {old.get(key)!r}, is now {new.get(key)!r}" for key in names)
            raise StoreError(
                f"{found.path}: holds a run with other {part}: {shown}", hint="choose another folder"
            )
    if found.inputs == wanted["inputs"]:
        return found
    moved = found.record | {"inputs": wanted["inputs"]}
    write_json(found.path / "run.json", moved)
    return Run(found.path, moved)
