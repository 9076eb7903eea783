"""Foreign and damaged stores, caches and runs: an error that names file and field, never another one."""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from avel.errors import AvelError, StoreError
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.train import train_head
from avel.stores.features import FeatureCache
from avel.stores.inspection import inspect
from avel.stores.runs import Run
from avel.stores.seal import MARK, UNSEALED, seal_fault, sealed
from tests.heads.synthetic import train_config
from tests.stores.forging import flip, forge_json, forge_table
from tests.stores.readers import READERS, make_files

OURS = [reader.file for reader in READERS if reader.file.split("/")[0] in ("s.zarr", "c.h5", "run")]
READ = {reader.file: reader.read for reader in READERS}
FLIPS = 6
"""Bits flipped in each file by a test; `fuzzing` flips more."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.fixture
def files(made: Path, request: pytest.FixtureRequest) -> Any:
    """The folder of all files; the one that the test names is put back after it."""
    path = made / request.node.callspec.params["file"]
    whole = path.read_bytes()
    yield made
    path.write_bytes(whole)


def field(path: str, value: Any = ...) -> Callable[[Any], Any]:
    """A change of a document: the field gets `value`, or goes."""

    def change(document: Any) -> Any:
        holder = document
        *way, last = path.split(".")
        for step in way:
            holder = holder[step]
        if value is ...:
            del holder[last]
        else:
            holder[last] = value
        return document

    return change


def instead(value: Any) -> Callable[[Any], Any]:
    return lambda document: value


DOCUMENTS = [
    ("s.zarr/zarr.json", field("attributes.version", 2), "version 2, this avel reads"),
    ("s.zarr/zarr.json", field("attributes.format", "other"), "format 'other'"),
    ("s.zarr/zarr.json", field("attributes.grid"), "grid is missing"),
    ("s.zarr/zarr.json", field("attributes.grid", []), "grid is \\[\\], not an object"),
    ("s.zarr/zarr.json", field("attributes.grid.fps", "4"), "grid.fps is '4', not a whole number"),
    ("s.zarr/zarr.json", field("attributes.grid.segments", 10**9), "segments=1000000000 must be at most"),
    ("s.zarr/zarr.json", field("attributes.grid.segment_seconds", float("nan")), "must be positive"),
    ("s.zarr/zarr.json", field("attributes.frame_codec", "png"), "frame_codec is 'png', not one of jpeg"),
    ("s.zarr/zarr.json", field("attributes.videos", None), "videos is None, not a whole number"),
    ("s.zarr/zarr.json", field("attributes.videos", -1), "videos is -1, not 0 to"),
    ("s.zarr/zarr.json", field("attributes.videos", 2**70), "videos is 1180591620717411303424, not 0 to"),
    (
        "s.zarr/zarr.json",
        field("attributes.grid.segment_seconds", 10**400),
        "segment_seconds is 1000.*, not a",
    ),
    ("s.zarr/zarr.json", field("attributes.version", 5), "version 5, this avel reads"),
    ("s.zarr/zarr.json", field("attributes", "text"), "attributes are not a JSON object"),
    ("s.zarr/zarr.json", instead([]), "is not a JSON object"),
    ("run/run.json", field("format", 2), "format 2, this avel reads"),
    ("run/run.json", field("format"), "format None, this avel reads"),
    ("run/run.json", field("kind", "other"), "kind is 'other', not one of pretrain, heads"),
    ("run/run.json", field("config", None), "config is None, not an object"),
    ("run/run.json", field("config.epochs", "many"), "epochs='many' is not a whole number"),
    ("run/run.json", field("config.other", 1), "no setting named 'other'"),
    ("run/run.json", field("inputs", []), "inputs is \\[\\], not an object"),
    ("run/run.json", field("inputs.categories"), "categories is missing"),
    ("run/run.json", field("inputs.trials", {}), "trials is {}, not a list"),
    ("run/run.json", field("inputs.trials", ["../x"]), "inputs.trials holds '../x'"),
    ("run/run.json", field("inputs.segments", 0), "inputs.segments is 0"),
    ("run/run.json", field("versions", {"torch": 2}), "versions.torch is 2, not text"),
    ("run/run.json", instead(None), "is not a JSON object"),
    ("run/results.json", field("groups", []), "groups is \\[\\], not an object"),
    ("run/results.json", field("samples", None), "samples is None, not a whole number"),
    ("run/results.json", instead([1]), "is not a JSON object"),
    ("run/files.json", field("files", None), "files is None, not an object"),
    ("run/files.json", field("files", {"x": 1}), "files.x is 1, not an object"),
    ("run/files.json", field("files", {"/etc/passwd": {"bytes": 1, "sha256": ""}}), "outside of the run"),
    ("run/files.json", field("files", {"a/../../b": {"bytes": 1, "sha256": ""}}), "outside of the run"),
    ("run/trials/seed=0.json", field("widths"), "widths is missing"),
    ("run/trials/seed=0.json", field("widths.audio", 7), "does not fit the trial's record"),
    ("run/trials/seed=0.json", field("config.head", "none"), "no head named 'none'"),
    ("run/trials/seed=0.json", field("best_epoch", 1.5), "best_epoch is 1.5, not a whole number"),
    ("run/trials/seed=0.json", field("name", "seed=1"), "name is 'seed=1', not 'seed=0'"),
    ("run/trials/seed=0.json", instead({}), "epochs is missing"),
]


@pytest.mark.parametrize(("file", "change", "says"), DOCUMENTS)
def test_a_document_with_a_wrong_field_is_named(
    files: Path, file: str, change: Callable[[Any], Any], says: str
) -> None:
    forge_json(files / file, change)
    with pytest.raises(StoreError, match=f"{Path(file).stem}.*{says}") as raised:
        READ["run/run.json" if file.startswith("run") else file](files)
    assert raised.value.hint


def null(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.nulls(len(table), table[name].type)
    )


def other(name: str, values: Callable[[int], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.array(values(len(table)))
    ).replace_schema_metadata(table.schema.metadata)


MANIFEST, TABLES = "s.zarr/manifest/part-00000003.parquet", "s.zarr/dataset"
WRONG_TABLES = [
    (MANIFEST, lambda table: table.drop_columns(["state"]), "column state is missing"),
    (MANIFEST, lambda table: table.append_column("more", table["row"]), "column more is not known"),
    (MANIFEST, lambda table: table.append_column("row", table["row"]), "column row is there twice"),
    (MANIFEST, null("source_sha256"), "column source_sha256 lacks 3 values"),
    (MANIFEST, other("row", lambda count: ["1"] * count), "column row is string, not int64"),
    (MANIFEST, other("state", lambda count: ["gone"] * count), "column state holds 'gone', not one of"),
    (MANIFEST, other("reason", lambda count: ["bored"] * count), "column reason holds 'bored', not one of"),
    ("s.zarr/rows.parquet", null("video_id"), "column video_id lacks 3 values"),
    ("s.zarr/rows.parquet", other("video_id", lambda count: ["a"] * count), "names a video twice"),
    ("s.zarr/rows.parquet", lambda table: table.slice(1), "2 videos, zarr.json says 3"),
    (f"{TABLES}/samples.parquet", lambda table: table.replace_schema_metadata({}), "no name in the schema"),
    (
        f"{TABLES}/samples.parquet",
        lambda table: table.replace_schema_metadata(table.schema.metadata | {b"name": b"\xff"}),
        "the schema's metadata are not UTF-8",
    ),
    (f"{TABLES}/samples.parquet", null("video_id"), "column video_id lacks"),
    (f"{TABLES}/samples.parquet", other("split", lambda count: ["x"] * count), "split 'x' is none of"),
    (f"{TABLES}/events.parquet", other("category", lambda count: ["x"] * count), "no class named 'x'"),
    (f"{TABLES}/events.parquet", other("onset_seconds", lambda count: [np.nan] * count), "event from nan"),
    (f"{TABLES}/videos.parquet", lambda table: table.slice(0, 1), "no such video"),
    ("run/predictions.parquet", lambda table: table.drop_columns(["label"]), "column label is missing"),
    ("run/predictions.parquet", other("trial", lambda count: ["x"] * count), "trial holds 'x', no trial"),
    ("run/predictions.parquet", other("split", lambda count: ["x"] * count), "split holds 'x', not one of"),
    ("run/predictions.parquet", other("label", lambda count: [99] * count), "label holds 99"),
    ("run/predictions.parquet", other("label", lambda count: [0] * (count - 1) + [-7]), "label holds -7"),
    (
        "run/predictions.parquet",
        lambda table: table.slice(1),
        "column segment does not count from 0 to at most 2",
    ),
    (
        "run/predictions.parquet",
        lambda table: table.slice(0, 0),
        "no predictions of split 'val'\n  next: train into another run folder",
    ),
]


@pytest.mark.parametrize(("file", "change", "says"), WRONG_TABLES)
def test_a_table_with_a_wrong_column_is_named(
    files: Path, file: str, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    forge_table(files / file, change)
    read = READ[file] if file.startswith("s") else lambda folder: evaluate(folder / "run", "val")
    with pytest.raises(StoreError, match=says) as raised:
        read(files)
    assert str((files / file).parent) in raised.value.message


def set_dataset(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def set_attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


def linked(file: h5py.File) -> None:
    del file["f_a"]
    file["f_a"] = h5py.ExternalLink("/elsewhere.h5", "/f_a")


def softly_linked(file: h5py.File) -> None:
    del file["sample"]
    file["sample"] = h5py.SoftLink("/video")


def outside(file: h5py.File) -> None:
    del file["f_v"]
    file.create_dataset("f_v", (11, 3, 12), np.float32, external=[("/etc/passwd", 0, 11 * 3 * 12 * 4)])


def virtual(file: h5py.File) -> None:
    del file["f_v"]
    layout = h5py.VirtualLayout((11, 3, 12), np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "f_v", shape=(11, 3, 12))
    file.create_virtual_dataset("f_v", layout)


def endless(file: h5py.File) -> None:
    del file["f_a"]
    file.create_dataset("f_a", (10**9, 3, 12), np.float32)


def grouped(file: h5py.File) -> None:
    del file["video"]
    file.create_group("video")


WRONG_CACHES = [
    (set_attribute("version", 2), "version 2, this avel reads"),
    (set_attribute("format", None), "format None"),
    (set_attribute("segments", "3"), "segments is '3', not a whole number"),
    (set_attribute("segments", 4), "4 segments of 1.0 s do not fit f_a"),
    (set_attribute("segment_seconds", np.nan), "segments of nan s"),
    (set_dataset("provenance", None), "provenance is missing"),
    (set_dataset("provenance", np.bytes_("{")), "provenance is damaged: no JSON"),
    (set_dataset("provenance", np.bytes_("[]")), "provenance is not a JSON object"),
    (set_attribute("digest", "0" * 16), "its content does not match its digest"),
    (set_dataset("split", None), "split is missing"),
    (set_dataset("split", [1] * 12), "split is int64, not text"),
    (set_dataset("split", np.array([b"fold"] * 12)), "split: 'fold' is none of"),
    (set_dataset("sample", np.zeros(12, np.int64)), "two samples have one number"),
    (set_dataset("video", np.full(12, 99)), "a sample is of video 99, there are 11"),
    (set_dataset("video", np.zeros(3, np.int64)), "video has 3 values, not 12"),
    (set_dataset("event_category", np.full((2, 2), 9)), "event_category has 2 dimensions, not 1"),
    (set_dataset("event_onset_seconds", np.zeros(3, np.float32)), "event_onset_seconds is float32"),
    (set_dataset("event_onset_seconds", np.full(12, np.inf)), "onset or offset is not a time"),
    (set_dataset("f_a_crc32c", None), "f_a_crc32c is missing"),
    (set_dataset("f_a", np.zeros((11, 3, 12))), "f_a is float64, not float32"),
    (set_dataset("f_a", np.zeros((11, 3), np.float32)), r"f_a is \(11, 3\)"),
    (set_dataset("f_v", None), "a feature cache holds f_a, f_v"),
    (linked, "f_a is a link to /elsewhere.h5/f_a, which is not followed"),
    (softly_linked, "sample is a link to /video, which is not followed"),
    (outside, "f_v: its values lie in /etc/passwd, which is not read"),
    (virtual, "f_v: its values lie in other files, which is not read"),
    (endless, "says it is .1000000000, 3, 12., but the file holds 0 bytes"),
    (grouped, "video is not an array"),
]


@pytest.mark.parametrize("file", ["c.h5"])
@pytest.mark.parametrize(("change", "says"), WRONG_CACHES)
def test_a_cache_with_a_wrong_field_is_named(
    files: Path, file: str, change: Callable[[h5py.File], None], says: str
) -> None:
    with h5py.File(files / file, "r+") as opened:
        change(opened)
    with pytest.raises(StoreError, match=f"c.h5.*{says}") as raised:
        FeatureCache.open(files / file)
    assert raised.value.hint


@pytest.mark.parametrize("file", [reader.file for reader in READERS])
def test_a_file_that_is_cut_empty_or_another_is_refused(files: Path, file: str) -> None:
    path = files / file
    whole = path.read_bytes()
    cut = whole[: len(whole) // 2], whole[:-1]
    for content in (*cut, b"", b"null", b"[]", b"\xff\xfe\x00", b"PAR1", b"\0" * 99):
        path.write_bytes(content)
        with contextlib.suppress(AvelError):
            READ[file](files)
            assert file not in OURS or path.suffix == ".jsonl"  # a shorter text may be whole as well


@pytest.mark.parametrize("file", OURS)
def test_verify_finds_every_flip_that_changes_a_value(files: Path, file: str) -> None:
    top = files / file.split("/")[0]
    assert inspect(top, verify=True).whole
    chance, whole = random.Random(file), (files / file).read_bytes()
    before = _values(files) if file == "c.h5" else None
    for _ in range(FLIPS):
        (files / file).write_bytes(whole)
        place = chance.randrange(len(whole))
        flip(files / file, place, chance.randrange(8))
        with contextlib.suppress(AvelError):
            found = inspect(top, verify=True)
            # HDF5 leaves gaps, where nothing lies; all other formats have no byte that says nothing
            assert not found.whole or _values(files) == before, place


def _values(files: Path) -> object:
    """Everything that the cache holds."""
    cache = FeatureCache.open(files / "c.h5")
    about = cache.provenance, cache.video_ids, cache.categories, cache.missing, cache.segment_seconds
    table = [vars(cache.samples)[name].tolist() for name in ("number", "video", "split", "leaked", "known")]
    events = [values.tolist() for values in vars(cache.samples.events).values()]
    return about, table, events, {name: cache.read(name).tobytes() for name in cache.shapes}


@pytest.mark.parametrize("file", ["c.h5"])
def test_training_refuses_a_flipped_feature_with_the_mending_command(
    files: Path, file: str, tmp_path: Path
) -> None:
    with h5py.File(files / file) as opened:
        place = opened["f_a"].id.get_offset() + 3 * 12 * 4 * 2 + 5  # in row 2
    flip(files / file, place)
    with pytest.raises(StoreError, match=r"c\.h5: row 2 of f_a is damaged") as raised:
        train_head(files / file, tmp_path / "run", train_config(head="mlp", epochs=1))
    assert "--overwrite" in raised.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("file", ["run/predictions.parquet"])
def test_a_run_with_cut_predictions_is_not_whole(files: Path, file: str) -> None:
    size = (files / file).stat().st_size
    (files / file).write_bytes((files / file).read_bytes()[:-100])
    assert inspect(files / "run").problems == (
        f"predictions.parquet: has {size - 100} bytes instead of {size}",
    )


@pytest.mark.parametrize("file", ["run/files.json"])
def test_a_listed_file_of_an_impossible_name_is_missing(files: Path, file: str) -> None:
    forge_json(files / file, field("files", {"a" * 5000: {"bytes": 1, "sha256": ""}}))
    assert inspect(files / "run").problems == (f"{'a' * 5000}: is missing",)


@pytest.mark.parametrize("file", ["run/trials/seed=0.safetensors"])
def test_weights_that_do_not_fit_or_are_no_tensors_are_refused(files: Path, file: str) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3)}, files / file, metadata={"checksum": UNSEALED})
    (files / file).write_bytes(sealed((files / file).read_bytes()))
    with pytest.raises(StoreError, match=r"seed=0\.safetensors: does not fit the trial's record"):
        READ[file](files)
    save_file({"w": np.zeros(3)}, files / file)
    with pytest.raises(StoreError, match=r"seed=0\.safetensors: it carries no checksum"):
        READ[file](files)


@pytest.mark.parametrize("file", ["encoder/encoder.safetensors"])
@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("format", "2", "no encoder of format 4"),
        ("encoder", "{", "encoder is damaged: no JSON"),
        ("encoder", "{}", "visual is missing"),
        ("pretrained", "7", "pretrained is not a JSON object"),
    ],
)
def test_an_encoder_with_a_wrong_header_is_named(
    files: Path, file: str, key: str, text: str, says: str
) -> None:
    data = (files / file).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = (
        {"checksum": UNSEALED} | header["__metadata__"] | {"checksum": UNSEALED, key: text}
    )
    changed = json.dumps(header).encode()
    changed += b" " * (-len(changed) % 8)
    (files / file).write_bytes(sealed(len(changed).to_bytes(8, "little") + changed + data[8 + length :]))
    with pytest.raises(StoreError, match=rf"encoder\.safetensors.*{says}"):
        READ[file](files)


@pytest.mark.parametrize("file", ["run/metrics.jsonl"])
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("null", "line 1 is not a JSON object"),
        ("{", "line 1 is damaged: no JSON"),
        ('{"epoch": "one"}', "line 1: epoch is 'one', not a whole number"),
        ('{"epoch": 1, "trial": 3}', "line 1: trial is 3, not text"),
    ],
)
def test_a_wrong_line_of_the_metrics_is_named(files: Path, file: str, line: str, says: str) -> None:
    (files / file).write_text(line + "\n")
    with pytest.raises(StoreError, match=rf"metrics\.jsonl: {says}"):
        Run.open(files / "run").metrics()


def test_a_seal_shows_every_changed_byte() -> None:
    whole = sealed(b'{"checksum": "' + UNSEALED.encode() + b'", "a": 1}')
    assert MARK in whole
    assert seal_fault(whole) == ""
    for place in range(len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        assert seal_fault(changed)
