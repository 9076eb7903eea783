"""Reads and writes a run folder: config.toml, its inputs (run.json), metrics.jsonl and results.json.

The stage that trains also writes weights (safetensors) and predictions (Parquet) into the folder. A finished
run lists sizes and hashes of its files in files.json.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from avel.config import as_dict, flat, resolve, settings_of, to_toml
from avel.errors import ConfigError, StoreError
from avel.stores.documents import SEAL, parse, read_document, typed, write_document
from avel.stores.files import LOCK, as_write_error, only_one, sha256_file, write_text
from avel.stores.kinds import not_a
from avel.stores.seal import seal_fault
from avel.text import as_plain, html_table

FORMAT = 4
R = TypeVar("R")
RunKind = Literal["pretrain", "heads"]
COMMANDS: dict[RunKind, str] = {"pretrain": "pretrain", "heads": "train-head"}
"""Kind of run -> the command that makes it, which also names its table in config.toml."""
HOW_TO_GET: dict[RunKind, str] = {
    "pretrain": "avel pretrain STORE RUN trains encoders",
    "heads": "avel cache-features STORE CACHE --encoder RUN, then avel train-head CACHE HEADS",
}
"""Kind of run -> the commands that make one, for an error where a run of the other kind was given."""
TIME = "%Y-%m-%dT%H:%M:%S%z"
RUN_AGAIN = "make the run again, in another folder"
LEFTOVERS = re.compile(re.escape(LOCK) + r"|\.(config\.toml|run\.json)\..*\.partial")
"""Names of the lock and of half-written files that a run leaves if it is killed as it begins."""
RECORD, RESULTS, FILE_LIST, METRICS = "run.json", "results.json", "files.json", "metrics.jsonl"
HEAD_FILES = "head_code"
"""Folder of a run with copies of the Python files given with `--head FILE`, to read; they are never run."""
UNLISTED = (RECORD, RESULTS, FILE_LIST)
"""Files of a run that files.json does not list: they carry checksums of their own."""
LIBRARIES = ("avel", "torch", "torchvision", "torchaudio", "numpy", "av", "zarr", "h5py")


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that can change results."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class RunRecord:
    """Contents of run.json: kind of run, settings, paths and digests of inputs, versions, times.

    Attributes:
        started, finished: local times with their offset from UTC; `finished` is "" before the results.
    """

    format: int
    kind: RunKind
    config: dict[str, Any]
    inputs: dict[str, Any]
    versions: dict[str, str]
    hardware: str
    started: str
    finished: str = ""


@dataclass(frozen=True)
class ListedFile:
    """One file of a finished run."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileList:
    """Contents of files.json: name below the run's folder -> the file."""

    files: dict[str, ListedFile]

    def __post_init__(self) -> None:
        for name in self.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise StoreError(f"files holds {name!r}, which lies outside of the run")


@dataclass(frozen=True, repr=False)
class Run:
    """One run folder, open for reading and appending."""

    path: Path
    record: RunRecord

    def __repr__(self) -> str:
        state = f"finished on {self.finished_on}" if self.finished else "not finished"
        return f"<Run {self.path}: of avel {COMMANDS[self.kind]}, {state}>"

    def _repr_html_(self) -> str:
        facts = {
            "command": f"avel {COMMANDS[self.kind]}",
            "state": f"finished on {self.finished_on}" if self.finished else "not finished",
            "epochs": f"{max((line.get('epoch', 0) for line in self.metrics()), default=0):,}",
            **{name: value for name, value in self.inputs.items() if isinstance(value, str | int | float)},
        }
        return html_table(f"run {self.path}", facts)

    @classmethod
    def create(
        cls, path: Path | str, kind: RunKind, config: Any, *, inputs: dict[str, Any], hardware: str = ""
    ) -> Run:
        """Begins a run, or continues the run at `path` if it has the same kind, config and inputs.

        Settings that do not change results (devices, workers, how often to save) may differ.

        Raises:
            StoreError: `path` contains another run or other files.
        """
        path = Path(path)
        record = RunRecord(
            FORMAT, kind, as_dict(config), inputs, library_versions(), hardware, time.strftime(TIME)
        )
        if (path / RECORD).is_file():
            may_differ = {setting.key for setting in settings_of(config) if not setting.in_key}
            return _same_run(cls.open(path), record, may_differ)
        toml = to_toml(config, COMMANDS[kind])
        if path.exists() and not _just_begun(path, toml):
            raise StoreError(f"{path}: exists and is not an avel run", hint="choose another folder")
        write_text(path / "config.toml", toml)
        write_document(path / RECORD, vars(record))
        return cls(path, record)

    @classmethod
    def open(cls, path: Path | str, kind: RunKind | None = None) -> Run:
        """Opens the run at `path`.

        Raises:
            MissingPathError: nothing is there.
            StoreError: it is no run, or the run has another kind or format, or its record is damaged.
        """
        path = Path(path)
        file = path / RECORD
        if not file.is_file():
            raise not_a("run", path, "avel pretrain or avel train-head makes one")
        data = file.read_bytes()
        format_there = parse(data, file, RUN_AGAIN).get("format")
        if format_there != FORMAT:
            raise StoreError(f"{file}: format {format_there!r}, this avel reads {FORMAT}", hint=RUN_AGAIN)
        record = read_document(RunRecord, data, file, RUN_AGAIN)
        if kind is not None and record.kind != kind:
            raise StoreError(
                f"{path}: made by avel {COMMANDS[record.kind]}, need one made by avel {COMMANDS[kind]}",
                hint=HOW_TO_GET[kind],
            )
        return cls(path, record)

    @property
    def kind(self) -> RunKind:
        """Returns the kind of the run, which says which command made it."""
        return self.record.kind

    @property
    def inputs(self) -> dict[str, Any]:
        """Returns paths and digests of what it was made from, to show; `read_inputs` returns them typed."""
        return dict(self.record.inputs)

    def read_inputs(self, inputs_type: type[R]) -> R:
        """Reads the inputs as the dataclass `inputs_type`.

        Raises:
            StoreError: one is missing, or of another type.
        """
        return typed(inputs_type, self.record.inputs, self.path / RECORD, RUN_AGAIN)

    def config(self, config_type: type[R]) -> R:
        """Returns the resolved settings as a `config_type`.

        Raises:
            StoreError: one is not known here, or has another type.
        """
        return read_config(config_type, COMMANDS[self.kind], self.record.config, self.path / RECORD)

    def reopen(self, config: Any, inputs: dict[str, Any]) -> Run:
        """Marks the run as not finished, with another config and other inputs; returns it."""
        for name in (RESULTS, FILE_LIST):
            (self.path / name).unlink(missing_ok=True)
        write_text(self.path / "config.toml", to_toml(config, COMMANDS[self.kind]))
        record = replace(self.record, config=as_dict(config), inputs=inputs, finished="")
        write_document(self.path / RECORD, vars(record))
        return Run(self.path, record)

    def log(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl.

        Raises:
            WriteError: the file cannot be written.
        """
        path = self.path / METRICS
        with as_write_error(path), path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Reads the lines of metrics.jsonl, without a last line that a kill has cut off.

        Raises:
            StoreError: a line is not a JSON object, or its epoch not a whole number.
        """
        path = self.path / METRICS
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        hint = f"delete that line; avel {COMMANDS[self.kind]} goes on without it"
        values = [parse(line, f"{path}: line {number}", hint) for number, line in enumerate(lines, 1)]
        for number, line in enumerate(values, 1):
            typed(Line, {key: line.get(key) for key in ("epoch", "trial")}, f"{path}: line {number}", hint)
        return values

    def rewind(self, keep: list[dict[str, Any]]) -> None:
        """Replaces the lines of metrics.jsonl by `keep`, those logged before the checkpoint was written."""
        write_text(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in keep))

    def finish(self, results: Any) -> None:
        """Lists the run's files, then writes a dataclass of results, which marks the run as finished.

        The time goes into run.json before that.
        """
        listed = {
            str(path.relative_to(self.path)): ListedFile(path.stat().st_size, sha256_file(path))
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and path.name not in UNLISTED
        }
        write_document(self.path / FILE_LIST, as_plain(FileList(listed)))
        write_document(self.path / RECORD, vars(replace(self.record, finished=time.strftime(TIME))))
        write_document(self.path / RESULTS, as_plain(results))

    @property
    def finished(self) -> bool:
        """Returns True if the run has its results.json."""
        return (self.path / RESULTS).is_file()

    @property
    def finished_on(self) -> str:
        """Returns date and time at which a finished run got its results, as the clock there showed it."""
        return self.record.finished[:16].replace("T", " at ")

    @property
    def results(self) -> dict[str, Any]:
        """Returns the contents of results.json as plain values; `read_results` returns them typed.

        Raises:
            StoreError: the run is not finished, or the file is damaged.
        """
        plain = parse(*self._results())
        return {key: value for key, value in plain.items() if key != SEAL}

    def read_results(self, results_type: type[R]) -> R:
        """Reads the results that `finish` wrote, as the dataclass `results_type`.

        Raises:
            StoreError: the run is not finished, or a value in the file is missing or of another type.
        """
        return read_document(results_type, *self._results())

    def _results(self) -> tuple[bytes, Path, str]:
        """Returns the bytes of results.json, its path, and the next step if it is damaged."""
        again, path = f"give the same avel {COMMANDS[self.kind]} command again", self.path / RESULTS
        if not self.finished:
            raise StoreError(f"{self.path}: not finished", hint=f"{again} to go on")
        return path.read_bytes(), path, f"delete the file and {again}"

    def how_to_remake(self) -> str:
        """Returns how to make a run again that has damaged files."""
        if self.kind == "heads":
            return f"the same avel {COMMANDS[self.kind]} command with --overwrite trains it again"
        return f"remove {self.path}, and the same avel {COMMANDS[self.kind]} command trains it again"

    def faults(self, *, verify: bool) -> list[str]:
        """Returns a line for each file of a finished run that is not as it was; with `verify` reads them all.

        Raises:
            StoreError: the list of files is damaged.
        """
        path = self.path / FILE_LIST
        if not path.is_file():
            return [f"{FILE_LIST} is missing"]
        listed = read_document(FileList, path.read_bytes(), path, self.how_to_remake()).files
        fault_of = {name: self._fault(name, about, verify) for name, about in listed.items()}
        if verify and (broken := seal_fault((self.path / RESULTS).read_bytes())):
            fault_of[RESULTS] = broken
        return [f"{name}: {what}" for name, what in fault_of.items() if what]

    def _fault(self, name: str, about: ListedFile, verify: bool) -> str:
        """Returns how a file differs from what files.json says of it, "" where it does not."""
        path = self.path / name
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            return "is missing"
        size = path.stat().st_size
        if size != about.bytes:
            return f"has {size} bytes instead of {about.bytes}"
        changed = verify and sha256_file(path) != about.sha256
        return "bytes have changed since avel wrote it" if changed else ""


@dataclass(frozen=True)
class Line:
    """Fields of a line of metrics.jsonl that every reader needs: epoch, and in a head's run the trial."""

    epoch: int | None
    trial: str | None


def read_config(config_type: type[R], stage: str, values: dict[str, Any], where: object) -> R:
    """Returns recorded settings as a `config_type`.

    Raises:
        StoreError: one is not known here, or has another type.
    """
    try:
        return resolve(config_type, stage, options=values)
    except ConfigError as error:
        hint = error.hint or f"make it again with the avel {stage} of this version"
        raise StoreError(f"{where}: {error.message}", hint=hint) from None


def remove_head_run(path: Path) -> None:
    """Removes the run of `train-head` at `path`, if there is one, unless another process is at work on it.

    Raises:
        StoreError: the folder holds other files, or a run of another kind.
        BusyError: another process is at work on it.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    Run.open(path, "heads")
    with only_one(path, "run"):
        shutil.rmtree(path)


def remove_unused(path: Path) -> None:
    """Removes a run's folder where it holds nothing but the record of what was asked for."""
    if _is_unused(path):
        shutil.rmtree(path)


def forget_unused(path: Path) -> None:
    """Removes the record of a run that ended before its first epoch, so that it does not take the name.

    To be called while the run is locked; the lock stays.
    """
    if _is_unused(path):
        for name in (RECORD, "config.toml"):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / HEAD_FILES, ignore_errors=True)


def _is_unused(path: Path) -> bool:
    return all(
        item.name in ("config.toml", RECORD, HEAD_FILES)
        or LEFTOVERS.fullmatch(item.name)
        or (item.name == METRICS and not item.stat().st_size)
        for item in path.iterdir()
    )


def _just_begun(path: Path, toml: str) -> bool:
    """Returns True if the folder is empty, or a run with this config.toml was killed before run.json."""
    if not path.is_dir():
        return False
    files = [item for item in path.iterdir() if item.name == "config.toml"]
    return _is_unused(path) and all(item.read_text() == toml for item in files)


def _same_run(run: Run, asked: RunRecord, may_differ: set[str]) -> Run:
    """Returns the run if its record is the one asked for; settings in `may_differ` are not compared.

    Inputs of the same digest may have moved; run.json then gets their new paths.

    Raises:
        StoreError: the kind, a setting or an input differs.
    """
    if run.kind != asked.kind:
        raise StoreError(
            f"{run.path}: holds a run of avel {COMMANDS[run.kind]}", hint="choose another folder"
        )
    places = {key for key in asked.inputs if f"{key}_digest" in asked.inputs}
    compared = {
        "config": (run.record.config, asked.config, may_differ),
        "inputs": (run.record.inputs, asked.inputs, places),
    }
    for part, (before, now, ignored) in compared.items():
        old, new = flat(before), flat(now)
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        # An ignored key may be that of a table: "head_code" stands for "head_code.tacma", too
        names = [key for key in changed if ignored.isdisjoint((key, key.partition(".")[0]))]
        # Another head or backbone brings its own settings: name those only if no common setting differs
        names = [key for key in names if key in old and key in new] or names
        if names:
            shown = ", ".join(f"{key} was {old.get(key)!r}, is now {new.get(key)!r}" for key in names)
            again = ", or add --overwrite to train again" if asked.kind == "heads" else ""
            raise StoreError(
                f"{run.path}: holds a run with other {part}: {shown}", hint=f"choose another folder{again}"
            )
    if run.inputs == asked.inputs:
        return run
    moved = replace(run.record, inputs=asked.inputs)
    write_document(run.path / RECORD, vars(moved))
    return Run(run.path, moved)
