"""Arrow reads without threads, which would abort a short script at its end."""

import ast
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import avel
from avel.errors import StoreError
from avel.grid import Grid
from avel.stores.arrow import read_own_parquet, read_parquet, to_parquet
from avel.stores.clip_layout import StoreAttributes
from avel.stores.clip_writer import prepare_store, write_dataset
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.sample import Event, Sample, Samples, Video, Videos
from avel.stores.location import locate

TABLE = pa.table({"name": ["a", "b", "c"], "value": [1.5, None, -2.0]})
DATASET = Dataset(
    "d",
    "clips",
    ("Bark",),
    Samples.of((Sample(0, "v", (Event("Bark", 0, 3),)),)),
    Videos.of((Video("v", "v.mp4"),)),
)
RUNS = 12


def test_files_and_bytes_give_the_table(tmp_path: Path) -> None:
    path, buffer = tmp_path / "t.parquet", io.BytesIO()
    pq.write_table(TABLE, path)
    pq.write_table(TABLE, buffer)
    assert read_parquet(path) == read_parquet(buffer.getvalue()) == TABLE
    with pytest.raises(pa.ArrowInvalid):
        read_parquet(b"no Parquet")


def test_a_script_that_reads_a_store_ends_well(tmp_path: Path) -> None:
    location = locate(tmp_path / "clips.zarr")
    prepare_store(location, StoreAttributes(Grid(segments=2, fps=2, size=16), {}, "digest", "jpeg", 1), ["v"])
    write_dataset(location, DATASET)
    code = (
        "import sys; from avel.stores.clips import ClipStore; print(ClipStore.open(sys.argv[1]).dataset.name)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "clips.zarr")]
    for _ in range(RUNS):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "d\n", "")


READERS = {"read_table", "read_csv", "read_feather", "ParquetFile", "ParquetDataset", "open_csv", "to_pandas"}
"""Names in pyarrow that read, or work, with threads unless told otherwise."""


def test_all_of_avel_reads_through_these_functions() -> None:
    package = Path(avel.__file__).parent
    found = {
        f"{path.relative_to(package)}:{node.lineno} {node.func.value.id}.{node.func.attr}"
        for path in package.rglob("*.py")
        if path.name != "arrow.py" and "pyarrow" in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.attr in READERS
    }
    assert found == set()


def test_text_that_is_not_utf8_is_damage() -> None:
    column = pa.array([b"dog", b"\xff"], pa.binary()).view(pa.string())
    schema = pa.schema([pa.field("text", pa.string(), nullable=False)])
    data = to_parquet(pa.table([column], schema=schema))
    with pytest.raises(StoreError, match="samples is damaged"):
        read_own_parquet(data, schema, "samples", "stage the clips again")
