"""`extract` onto a disk that fills up: no clip is blamed, and the same command goes on once there is room."""

from pathlib import Path

import pytest

from avel.stores.clips import ClipStore
from tests.pipeline.staging.small_clips import contents, make_folder
from tests.small_disk import avel, check_refusal, small_disk

COUNT = 6
SMALL = ("--segments", "2", "--fps", "4", "--size", "32", "--workers", "2")
"""A clip's log-mel takes 48 KiB, its frames 9 KiB; all else that a run writes, 60 KiB in files of 12 KiB."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("clips") / "clips", COUNT)


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nothing interrupts writes."""
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert avel("extract", clips, store, *SMALL).returncode == 0
    return contents(store)


def states(store: Path) -> list[str]:
    return [entry.state for entry in ClipStore.open(store).entries.values()]


@pytest.mark.parametrize(
    ("full", "roomy"),
    [("size=200k", "size=4m"), ("nr_inodes=45", "nr_inodes=4000")],
    ids=["no space", "no inodes"],
)
def test_a_full_disk_blames_no_clip(
    clips: Path, whole: dict[str, bytes], tmp_path: Path, full: str, roomy: str
) -> None:
    with small_disk(tmp_path / "disk", full) as disk:
        store = disk.path / "s.zarr"
        check_refusal(avel("extract", clips, store, *SMALL), store, "No space left on device")
        assert "pending" in states(store)
        assert "failed" not in states(store)
        disk.remount(roomy)
        again = avel("extract", clips, store, *SMALL)
        assert again.returncode == 0, again.stderr
        assert states(store) == ["staged"] * COUNT
        assert contents(store) == whole
        assert not list(store.rglob("*.partial"))


def test_a_file_that_may_not_grow_blames_no_clip(
    clips: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    check_refusal(avel("extract", clips, store, *SMALL, largest_file=32 << 10), store, "File too large")
    assert states(store) == ["pending"] * COUNT
    assert avel("extract", clips, store, *SMALL).returncode == 0
    assert contents(store) == whole


def test_a_disk_that_is_read_only_is_named(clips: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        disk.remount("ro")
        store = disk.path / "s.zarr"
        check_refusal(avel("extract", clips, store, *SMALL), store, "Read-only file system")
