"""The manifest: the latest row counts, parts are whole or absent, merging changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from avel.errors import StoreError
from avel.stores.arrow import to_parquet
from avel.stores.location import locate
from avel.stores.manifest import (
    MERGE_AT_PARTS,
    Entry,
    Manifest,
    ManifestWriter,
    counts,
    joined,
    pending,
    read_manifest,
    to_table,
)


def entry(number: int, **changes: object) -> Entry:
    return replace(Entry(f"-clip{number}", number), **changes)  # type: ignore[arg-type]


def test_the_latest_row_of_a_video_counts(tmp_path: Path) -> None:
    writer = ManifestWriter(locate(tmp_path))
    writer.append([entry(1), entry(0)])
    writer.append([entry(1, state="staged", valid_seconds=9.5, source_mtime_ns=2**62)])
    read = read_manifest(locate(tmp_path))
    assert list(read) == ["-clip0", "-clip1"]  # in array order
    assert read["-clip1"] == entry(1, state="staged", valid_seconds=9.5, source_mtime_ns=2**62)
    assert read == ManifestWriter(locate(tmp_path)).entries


def test_parts_are_merged_without_losing_a_row(tmp_path: Path) -> None:
    writer = ManifestWriter(locate(tmp_path))
    for number in range(5 * MERGE_AT_PARTS + 5):
        writer.append([entry(number), entry(0, detail=str(number))])
    assert 1 < len(list((tmp_path / "manifest").iterdir())) < 2 * MERGE_AT_PARTS
    before = read_manifest(locate(tmp_path))
    writer.merge()
    assert len(list((tmp_path / "manifest").iterdir())) == 1
    assert read_manifest(locate(tmp_path)) == before
    assert list(before) == [f"-clip{number}" for number in range(5 * MERGE_AT_PARTS + 5)]
    assert before["-clip0"].detail == str(5 * MERGE_AT_PARTS + 4)


def test_merging_writes_each_row_a_few_times_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(
        "avel.stores.manifest.to_parquet", lambda table: written.append(table.num_rows) or to_parquet(table)
    )
    monkeypatch.setattr("avel.stores.manifest.MERGE_AT_PARTS", 4)
    location = locate(tmp_path)
    writer = ManifestWriter(location)
    writer.append([entry(number) for number in range(1000)])  # what is to be done, which no merge may copy
    for number in range(64):
        writer.append([entry(number, state="staged")])
    assert sum(written) - 1000 == 64 * (1 + 3), "itself, and as one of 4, 16, 64"
    assert max(written[1:]) == 64
    assert {each.state for each in read_manifest(location).where(state="staged").values()} == {"staged"}
    assert len(read_manifest(location).where(state="staged")) == 64


def test_entries_are_columns_and_an_entry_is_made_when_it_is_asked_for() -> None:
    entries = [
        entry(2, state="staged", stored_bytes=5),
        entry(0, state="failed", reason="timeout"),
        entry(7, state="staged", stored_bytes=6),
    ]
    found = Manifest(to_table(entries))
    assert found["-clip0"] == entries[1]
    assert [*found.records()] == [*found.values()] == entries
    assert [*found.blocks(2)] == [entries[:2], entries[2:]]
    assert "-clip7" in found
    assert "-clip1" not in found
    assert found.where(state="staged").ids == ["-clip2", "-clip7"]
    assert found.where(state="failed", reason="memory").ids == []
    assert found.stored_bytes == 11
    assert found.is_one_of("video_id", ["-clip7", "x"]).tolist() == [False, False, True]
    assert joined(found, found.take([1])).column("row").tolist() == [2, 0, 7, 0]


def test_a_pending_entry_has_the_defaults_of_all_others() -> None:
    (made,) = pending(["a"], [3], ["source-changed"], ["/clips/a.mp4"]).values()
    assert made == Entry("a", 3, "pending", "source-changed", source_path="/clips/a.mp4")


def test_a_merge_that_was_killed_reads_the_same(tmp_path: Path) -> None:
    location = locate(tmp_path)
    writer = ManifestWriter(location)
    writer.append([entry(0), entry(1)])
    writer.append([entry(1, state="failed", reason="no-video")])
    kept = {name: location.read(name) for name in location.names("manifest")}
    writer.merge()
    for name, data in kept.items():  # the old parts were not deleted yet
        location.write(name, data or b"")
    assert read_manifest(location)["-clip1"].reason == "no-video"
    (tmp_path / "manifest" / ".part-9.parquet.1.partial").write_bytes(b"half")
    assert len(read_manifest(location)) == 2


def test_appending_nothing_writes_nothing(tmp_path: Path) -> None:
    ManifestWriter(locate(tmp_path)).append([])
    assert not (tmp_path / "manifest").exists()


def test_a_damaged_part_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "part-00000000.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(StoreError, match=r"manifest/part-00000000.parquet is damaged"):
        read_manifest(locate(tmp_path))


def test_counts_and_table() -> None:
    entries = [entry(0, state="staged"), entry(1, state="failed", reason="timeout"), entry(2)]
    assert counts(Manifest(to_table(entries))) == {
        "staged": 1,
        "failed": 1,
        "pending": 1,
        "failed:timeout": 1,
    }
    table = to_table(entries)
    assert table.num_rows == 3
    assert table.schema.field("source_mtime_ns").type == "int64"
    assert table.schema.field("decode_seconds").type == "double"
    assert table.column("state").to_pylist() == ["staged", "failed", "pending"]
