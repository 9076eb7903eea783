"""Reads and writes a run folder: config.toml, its inputs (run.json), metrics.jsonl and results.json.

The stage that trains also writes weights (safetensors) and predictions (Parquet) into the folder.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from avel.config import as_dict, flat, resolve, settings_of, to_toml
from avel.errors import MissingPathError, StoreError
from avel.stores.files import LOCK, as_write_error, write_json, write_text
from avel.text import as_plain, from_plain

FORMAT = 3
RECORD = ("config.toml", "run.json")
R = TypeVar("R")
Kind = Literal["pretrain", "heads"]
COMMANDS: dict[Kind, str] = {"pretrain": "pretrain", "heads": "train-head"}
"""Kind of run -> the command that makes it, which also names its table in config.toml."""
LEFTOVERS = re.compile(re.escape(LOCK) + r"|\.(config\.toml|run\.json)\..*\.partial")
"""Names of the lock and of partial files that a killed run leaves of the first two files."""
LIBRARIES = ("avel", "torch", "torchvision", "torchaudio", "numpy", "av", "zarr", "h5py")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that can change results."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Run:
    """One run folder, open for reading and appending."""

    path: Path
    record: dict[str, Any]

    @classmethod
    def create(
        cls, path: Path | str, kind: Kind, config: Any, *, inputs: dict[str, Any], hardware: str = ""
    ) -> Run:
        """Begins a run, or continues the run at `path` if it has the same kind, config and inputs.

        Settings that do not change results (devices, workers, how often to save) may differ.

        Raises:
            StoreError: `path` contains another run or other files.
        """
        path = Path(path)
        record: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "config": as_dict(config),
            "inputs": inputs,
        }
        if (path / "run.json").is_file():
            may_differ = {setting.key for setting in settings_of(config) if not setting.numeric}
            return _same_run(cls.open(path), record, may_differ)
        toml = to_toml(config, COMMANDS[kind])
        if path.exists() and not _just_begun(path, toml):
            raise StoreError(f"{path}: exists and is no avel run", hint="choose another folder")
        write_text(path / "config.toml", toml)
        record |= {
            "versions": versions(),
            "hardware": hardware,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_json(path / "run.json", record)
        return cls(path, record)

    @classmethod
    def open(cls, path: Path | str, kind: Kind | None = None) -> Run:
        """Opens the run at `path`.

        Raises:
            MissingPathError: there is no run.
            StoreError: the run has another kind or format.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise MissingPathError(f"{path}: no avel run", hint="avel pretrain or avel train-head makes one")
        record = json.loads((path / "run.json").read_text())
        if record.get("format") != FORMAT:
            raise StoreError(f"{path}: run format {record.get('format')}, this avel reads {FORMAT}")
        if kind is not None and record["kind"] != kind:
            raise StoreError(
                f"{path}: made by avel {COMMANDS[record['kind']]}, need one made by avel {COMMANDS[kind]}"
            )
        return cls(path, record)

    @property
    def kind(self) -> Kind:
        """Kind of the run, which says which command made it."""
        return self.record["kind"]  # type: ignore[no-any-return]

    @property
    def inputs(self) -> dict[str, Any]:
        """Paths and digests of the run's inputs."""
        return dict(self.record["inputs"])

    def config(self, config_type: type[Any]) -> Any:
        """Reads the resolved config as a `config_type`."""
        return resolve(config_type, COMMANDS[self.kind], file=self.path / "config.toml")

    def log(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl.

        Raises:
            WriteError: the file cannot be written.
        """
        path = self.path / "metrics.jsonl"
        with as_write_error(path), path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Reads the lines of metrics.jsonl, without a last line that a kill has cut off."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

    def rewind(self, keep: list[dict[str, Any]]) -> None:
        """Replaces the lines of metrics.jsonl by `keep`, those logged before the checkpoint was written."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in keep))

    def finish(self, results: Any) -> None:
        """Writes a dataclass of results as results.json, which marks the run as finished."""
        write_json(self.path / "results.json", as_plain(results))

    @property
    def finished(self) -> bool:
        """True if the run has its results.json."""
        return (self.path / "results.json").is_file()

    @property
    def results(self) -> dict[str, Any]:
        """Contents of results.json as plain values; `read_results` returns them typed.

        Raises:
            StoreError: the run is not finished, or the file is no JSON.
        """
        if not self.finished:
            raise StoreError(
                f"{self.path}: not finished",
                hint=f"give the same avel {COMMANDS[self.kind]} command again to go on",
            )
        try:
            return json.loads((self.path / "results.json").read_text())  # type: ignore[no-any-return]
        except ValueError as error:
            raise self._damaged(str(error)) from None

    def read_results(self, kind: type[R]) -> R:
        """Reads the results that `finish` wrote, as the dataclass `kind`.

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
            hint=f"delete the file and give the same avel {COMMANDS[self.kind]} command again",
        )


def remove_unused(path: Path) -> None:
    """Removes a run's folder where it holds nothing but the record of what was asked for."""
    if all(item.name in RECORD or LEFTOVERS.fullmatch(item.name) for item in path.iterdir()):
        shutil.rmtree(path)


def _just_begun(path: Path, toml: str) -> bool:
    """Returns True if the folder is empty, or a run with this config.toml was killed before run.json."""
    if not path.is_dir():
        return False
    files = [item for item in path.iterdir() if not LEFTOVERS.fullmatch(item.name)]
    return all(item.name == "config.toml" and item.read_text() == toml for item in files)


def _same_run(found: Run, asked: dict[str, Any], may_differ: set[str]) -> Run:
    """Returns `found` if its record equals `asked`, apart from the settings in `may_differ`.

    Inputs of the same digest may have moved; run.json then gets their new paths.

    Raises:
        StoreError: the kind, a setting or an input differs.
    """
    if found.kind != asked["kind"]:
        raise StoreError(f"{found.path}: holds a {found.kind} run", hint="choose another folder")
    places = {key for key in asked["inputs"] if f"{key}_digest" in asked["inputs"]}
    for part, ignored in (("config", may_differ), ("inputs", places)):
        old, new = flat(found.record[part]), flat(asked[part])
        names = sorted(key for key in {*old, *new} - ignored if old.get(key) != new.get(key))
        if names:
            shown = ", ".join(f"{key} was {old.get(key)!r}, is now {new.get(key)!r}" for key in names)
            raise StoreError(
                f"{found.path}: holds a run with other {part}: {shown}", hint="choose another folder"
            )
    if found.inputs == asked["inputs"]:
        return found
    moved = found.record | {"inputs": asked["inputs"]}
    write_json(found.path / "run.json", moved)
    return Run(found.path, moved)
