"""Tables of events: ids and classes stay as written, and what cannot be used is named with its line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avel.errors import DatasetError, MissingPathError
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample

HEADER = "file,label,start,end,split"


def folder(root: Path, *names: str) -> Path:
    """A folder of empty video files, and one of the id `a`."""
    for name in ("a", *names):
        (root / f"{name}.mp4").touch()
    return root


def of_csv(root: Path, text: str | bytes) -> Dataset:
    table = root / "events.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_dataset(root, table)


def of_parquet(root: Path, **columns: object) -> Dataset:
    table = root / "events.parquet"
    pq.write_table(pa.table({"start": [0.5], "end": [2.0], **columns}), table)
    return read_dataset(root, table)


@pytest.mark.parametrize(
    "ids",
    [
        ("001", "010"),
        ("1e5",),
        ("0x10",),
        ("NA", "null"),
        ("True", "true"),
        ("2024-01-01 00:00",),
        ("-0", "inf"),
    ],
)
def test_ids_in_a_csv_are_text_as_written(tmp_path: Path, ids: tuple[str, ...]) -> None:
    rows = "".join(f"{name},Dog,0,1,train\n" for name in ids)
    dataset = of_csv(folder(tmp_path, *ids), f"{HEADER}\n{rows}")
    assert tuple(sample.video_id for sample in dataset.samples) == ids
    assert all(video.path for video in dataset.videos)


def test_an_event_may_be_only_heard_or_only_seen(tmp_path: Path) -> None:
    rows = "".join(f"a,Dog,0,1,train,{modality}\n" for modality in ("audio", "visual", "", "both"))
    (sample,) = of_csv(folder(tmp_path), f"{HEADER},modality\n{rows}").samples
    assert [event.modality for event in sample.events or ()] == ["audio", "visual", "both", "both"]
    with pytest.raises(DatasetError, match=r"line 2 \(a\): modality 'Audio' is none of both, audio, visual"):
        of_csv(folder(tmp_path), f"{HEADER},modality\na,Dog,0,1,train,Audio\n")


@pytest.mark.parametrize(
    "classes",
    [("01", "1"), ("1e5", "100000"), ("NA", "null"), ("True", "true"), ("1", "1.0"), ("nan", "NaN")],
)
def test_classes_in_a_csv_are_text_as_written(tmp_path: Path, classes: tuple[str, str]) -> None:
    rows = "".join(f"a,{name},0,1,train\n" for name in classes)
    assert of_csv(folder(tmp_path), f"{HEADER}\n{rows}").categories == classes


def test_a_csv_of_any_system_reads_the_same(tmp_path: Path) -> None:
    lines = [HEADER, 'a,"Café, ""loud""",0,1,train', "", "a,Dog,1.5,2e0,"]
    for line_end in ("\n", "\r\n", "\r"):
        for mark in (b"", b"\xef\xbb\xbf"):
            samples = of_csv(folder(tmp_path), mark + line_end.join(lines).encode()).samples
            assert [(sample.split, sample.events) for sample in samples] == [
                ("train", (Event('Café, "loud"', 0.0, 1.0),)),
                ("", (Event("Dog", 1.5, 2.0),)),
            ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,Dog,0,1,\na,,0,1,", r"events\.csv: line 3 \(a\): the class is empty"),
        ('a,Dog,0,1,\na,"  ",0,1,', r"line 3 \(a\): the class is empty"),
        (",Dog,0,1,", r"line 2 \(\): names no video"),
        ('a,Dog,0,1,\n\na,"A\nB",0,1,', r"line 4 \(a\): a line break in the class 'A\\nB'"),
        ('a,"A\r",0,1,', r"line 2 \(a\): a line break in the class 'A\\r'"),
        ("a,A\u2028B,0,1,", r"line 2 \(a\): a line break in the class"),
        ('a,"A\nB",0,1,\na,Dog,x,1,', r"line 4 \(a\): 'x' is not a number of seconds"),
        ("a,Dog,0,1,\na,background,0,1,", r"line 3 \(a\): a class may not be named 'background'"),
        ("a,Background ,0,1,", r"line 2 \(a\): a class may not be named 'Background '"),
        ("a,Dog,1_0,20,", r"line 2 \(a\): '1_0' is not a number"),
        ("a,,0,1,", r"line 2 \(a\): the class is empty"),
        ("a,Dog,,,", r"line 2 \(a\): '' is not a number"),
        ("a,?,0,,", r"line 2 \(a\): '' is not a number"),
        ("a,Dog,,2,", r"line 2 \(a\): '' is not a number"),
        ("a,Dog,nan,2,", r"line 2 \(a\): event from nan s to 2.0 s"),
        ("a,Dog,0,inf,", r"line 2 \(a\): event from 0.0 s to inf s"),
        ("a,Dog,2,1,", r"line 2 \(a\): event from 2.0 s to 1.0 s\n.*onset first"),
        ("a,Dog,0,1,dev", r"line 2 \(a\): split 'dev' is none of"),
        ("a,Dog,0,1", r"line 2: 4 fields, the header has 5"),
        ("a,Dog,0,1,,", r"line 2: 6 fields, the header has 5\n.*',' in double quotes"),
        ('a,"Dog,0,1,', r"line 2: unexpected end of data"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        of_csv(folder(tmp_path), f"{HEADER}\n{rows}\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (f"{HEADER}\na,Caf\u00e9,0,1,\n".encode("latin1"), r"line 2, byte 33 of the file: not UTF-8: 0xe9"),
        (f"{HEADER}\r\na,D,0,1,\r\na,\u00e9,0,1,".encode("latin1"), r"line 3, byte 41 .* 0xe9"),
        (f"{HEADER}\na,Dog,0,1,\n".encode("utf-16"), r"line 1, byte 1 of .* 0xff\n.*iconv -f UTF-16 "),
        (f"{HEADER}\na,Dog,0,1,\n".encode("utf-16-le"), r"line 1, byte 2 .*: a NUL.*\n.*iconv -f UTF-16LE"),
        (f"{HEADER}\na,Dog,0,1,\n".encode("utf-16-be"), r"line 1, byte 1 .*: a NUL.*\n.*iconv -f UTF-16BE"),
        (f"{HEADER}\na\0b,Dog,0,1,\n".encode(), r"line 2, byte 29 of the file: a NUL.*\n.*take it out"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"file,label,start,end,File\na,Dog,0,1,b\n", "2 columns are named file"),
        (b"file,label,label,start,end\na,Dog,Cat,0,1\n", "2 columns are named label"),
    ],
)
def test_a_file_that_is_no_table_of_text_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        of_csv(folder(tmp_path), data)


def test_columns_that_are_not_read_may_be_anything(tmp_path: Path) -> None:
    dataset = of_csv(folder(tmp_path), "file,label,start,end,,,note,note\na,Dog,0,1,,,x,y\n")
    assert [(each.video_id, each.events) for each in dataset.samples] == [("a", (Event("Dog", 0, 1),))]


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet"])
def test_a_table_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingPathError, match=f"{name}: no such annotation file"):
        read_dataset(folder(tmp_path), tmp_path / name)


def test_parquet_gives_the_same_text(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        columns = {"file": pa.array(["001"], kind), "label": pa.array(["01"], kind), "split": pa.nulls(1)}
        (sample,) = of_parquet(folder(tmp_path, "001"), **columns).samples
        assert sample == Sample(0, "001", (Event("01", 0.5, 2.0),))
    (sample,) = of_parquet(folder(tmp_path, "7"), file=[7], label=["Dog"], start=["0.5"], end=[2]).samples
    assert (sample.video_id, sample.events) == ("7", (Event("Dog", 0.5, 2.0),))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"file": ["a"], "label": [None]}, r"events\.parquet: row 0 \(a\): the class is empty"),
        ({"file": [None], "label": ["Dog"]}, r"row 0 \(\): names no video"),
        ({"file": ["a"], "label": ["A\nB"]}, r"row 0 \(a\): a line break"),
        ({"file": ["a"], "label": ["D\0g"]}, r"row 0 \(a\): a NUL in 'D\\x00g'"),
        ({"file": ["a"], "label": [b"Dog"]}, "the column of category is binary"),
        ({"file": ["a"], "label": pa.array([b"Caf\xe9"]).view(pa.string())}, "Invalid UTF8 sequence"),
        ({"file": [1.0], "label": ["Dog"]}, "the column of video_id is double"),
        (
            {"file": ["a"], "label": ["Dog"], "start": pa.array([5], pa.duration("ms"))},
            "onset_seconds is dur",
        ),
        (
            {"file": ["a"], "label": ["Dog"], "start": pa.nulls(1)},
            r"row 0 \(a\): '' is not a number of seconds",
        ),
        ({"file": ["a"], "File": ["b"], "label": ["Dog"]}, "2 columns are named file"),
    ],
)
def test_a_parquet_file_that_cannot_be_used_is_named(
    tmp_path: Path, columns: dict[str, object], words: str
) -> None:
    with pytest.raises(DatasetError, match=words):
        of_parquet(folder(tmp_path), **columns)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match=r"events\.parquet: "):
        read_dataset(folder(tmp_path), tmp_path / "events.parquet")
