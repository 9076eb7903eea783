"""`extract` into a packed store: only what has to be staged is, and all is read as before."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from avel.errors import ConfigError
from avel.pipeline.staging.extract import extract
from avel.stores.clip_check import verify_clips
from avel.stores.clips import ClipStore
from avel.stores.packing import pack
from tests.pipeline.staging.small_clips import SMALL, make_clip, make_folder

COUNT = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, and a store made from them in shards of two."""
    folder = tmp_path_factory.mktemp("made")
    make_folder(folder / "clips", COUNT)
    extract(folder / "clips", folder / "s.zarr", SMALL, workers=1)
    pack(folder / "s.zarr", 2)
    return folder


@pytest.fixture
def again(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of clips and store."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "clips", tmp_path / "s.zarr"


def read(store: Path) -> dict[str, tuple[object, ...]]:
    """All that a store holds, by clip."""
    opened = ClipStore.open(store)
    frames = range(opened.grid.frames)
    return {
        name: (opened.jpegs(name, frames), opened.log_mel(name).tobytes(), opened.waveform(name).tobytes())
        for name in opened.staged
    }


def packed(store: Path) -> set[str]:
    return {name for name, entry in ClipStore.open(store).entries.items() if entry.packed}


def shards(store: Path) -> list[str]:
    return sorted(
        str(file.relative_to(store / "packed/frames/c")) for file in store.glob("packed/frames/c/*/*")
    )


def test_only_what_has_changed_is_staged_again(again: tuple[Path, Path], tmp_path: Path) -> None:
    clips, store = again
    make_clip(clips / "clip01.mp4", seed=77)
    make_clip(clips / "new.mp4", seed=78)
    (clips / "clip03.mp4").write_bytes(b"no video")
    summary = extract(clips, store, SMALL, workers=1)
    assert (summary.staged, summary.skipped, summary.failed) == (2, COUNT - 2, 1)
    extract(clips, tmp_path / "fresh.zarr", SMALL, workers=1)
    expected = read(tmp_path / "fresh.zarr")
    assert read(store) == expected
    assert packed(store) == {"clip00", "clip02", "clip04"}
    assert pack(store).packed == COUNT
    assert read(store) == expected
    assert verify_clips(ClipStore.open(store)) == ()
    assert not list(store.glob("frames/c/*")), "also the failed clip has left no folder"


def test_staging_all_again_deletes_the_shards(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = read(store)
    assert shards(store) == ["0/0", "1/0", "2/0"]
    assert extract(clips, store, SMALL, workers=1, overwrite=True).staged == COUNT
    assert shards(store) == []
    assert read(store) == before
    assert pack(store).now == COUNT
    assert read(store) == before


def test_a_clip_makes_no_room_in_a_shard_that_stays(
    again: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, store = again
    sizes = ClipStore.open(store).entries.by_id("stored_bytes")
    free = min(sizes.values()) // 2
    monkeypatch.setattr("avel.pipeline.staging.extract.FORECAST_FROM", 1)
    monkeypatch.setattr("avel.pipeline.staging.extract.free_bytes", lambda place: free)
    shutil.copy(clips / "clip00.mp4", clips / "clip01.mp4")
    with pytest.raises(ConfigError, match="are free on its disk"):
        extract(clips, store, SMALL, workers=1)
    shutil.copy(clips / "clip02.mp4", clips / "clip00.mp4")  # now the whole shard goes
    assert extract(clips, store, SMALL, workers=1).staged == 2


def test_arrays_of_another_form_begin_without_shards(again: tuple[Path, Path]) -> None:
    clips, store = again
    smaller = replace(SMALL, size=16)
    with pytest.raises(ConfigError, match=f"{COUNT} staged clips"):
        extract(clips, store, smaller, workers=1)
    assert len(packed(store)) == COUNT
    assert extract(clips, store, smaller, workers=1, overwrite=True).staged == COUNT
    assert not list(store.glob("packed/**/*.json"))
    before = read(store)
    assert pack(store, 3).room == 3
    assert read(store) == before
    assert verify_clips(ClipStore.open(store)) == ()


def test_repair_stages_a_damaged_clip_of_a_shard(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = read(store)
    shard = store / "packed/log_mel/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    (fault,) = verify_clips(ClipStore.open(store))
    damaged = fault.split(":")[0]
    assert extract(clips, store, SMALL, workers=1, repair=True).restaged == {"damaged": 1}
    assert packed(store) == before.keys() - {damaged}
    assert read(store) == before
    assert pack(store).packed == COUNT
    assert verify_clips(ClipStore.open(store)) == ()


def test_a_clip_that_left_the_dataset_stays_in_its_shard(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = read(store)
    (clips / "clip02.mp4").unlink()
    extract(clips, store, SMALL, workers=1)
    assert read(store) == before
    assert len(packed(store)) == COUNT
