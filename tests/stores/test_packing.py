"""Packed clips read as before, whatever interrupts packing and whatever comes after it."""

import os
import random
import shutil
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr

from avel.cli import cli
from avel.console import DONE, ERROR, SOME_FAILED, run
from avel.errors import BusyError, ConfigError, StoreError
from avel.grid import Grid
from avel.progress import set_verbosity
from avel.stores.clip_check import verify_clips
from avel.stores.clip_layout import StoreAttributes
from avel.stores.clip_writer import ClipWriter, flush, prepare_store, write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.sample import Sample, Samples, Video, Videos
from avel.stores.inspection import inspect
from avel.stores.location import LocalLocation, Location, locate
from avel.stores.manifest import Entry, ManifestWriter
from avel.stores.packing import pack
from tests.small_disk import avel, check_refusal, small_disk
from tests.stores.forging import flip

GRID = Grid(segments=12, fps=2, size=8, sample_rate=100)
IDS = tuple(f"clip{number}" for number in range(8))
FAILED = "clip4"
ATTRIBUTES = StoreAttributes(GRID, {"size": 8}, "digest0", "jpeg", len(IDS), waveform=True)
DATASET = Dataset(
    "test",
    "clips",
    (),
    Samples.of([Sample(number, name, ()) for number, name in enumerate(IDS)]),
    Videos.of([Video(name, f"{name}.mp4") for name in IDS]),
)
ROOM = 3
"""Clips to a shard: of eight, with one failed, there are 3, 2 and 2 staged ones in three shards."""


def names_of(attributes: StoreAttributes) -> tuple[str, ...]:
    return (*IDS, "new0", "new1")[: attributes.videos]


def stage(location: Location, attributes: StoreAttributes, row: int, seed: int) -> Entry:
    """Writes a clip of random bytes, in chunks of ten segments, as a run of its own."""
    prepare_store(location, attributes, names_of(attributes))
    noise = np.random.default_rng(seed)
    writer = ClipWriter(location, attributes.digest)
    writer.erase(row)
    segments = attributes.grid.segments
    for first in range(0, segments, 10):
        count = min(10, segments - first)
        writer.write("log_mel", row, first, noise.standard_normal((count, 96, 64)).astype(np.float32))
        if attributes.waveform:
            writer.write(
                "waveform", row, first * 100, noise.integers(-999, 999, count * 100).astype(np.int16)
            )
    for first in range(0, 2 * segments, 20):
        count = min(20, 2 * segments - first)
        if attributes.frame_codec == "raw":
            writer.write("frames", row, first, noise.integers(0, 255, (count, 8, 8, 3)).astype(np.uint8))
        else:
            writer.write(
                "frames", row, first, [b"\xff\xd8" + noise.bytes(40) + b"\xff\xd9" for _ in range(count)]
            )
    flush(location, attributes, row)
    return Entry(names_of(attributes)[row], row, "staged", settings=attributes.digest)


def build(place: Path | str, attributes: StoreAttributes = ATTRIBUTES) -> ClipStore:
    location = locate(place)
    prepare_store(location, attributes, names_of(attributes))
    write_dataset(location, DATASET)
    entries = [
        Entry(name, row, "failed", reason="no-video", settings=attributes.digest)
        if name == FAILED
        else stage(location, attributes, row, row)
        for row, name in enumerate(names_of(attributes))
    ]
    ManifestWriter(location).append(entries)
    return ClipStore.open(place)


def everything(store: ClipStore) -> dict[str, tuple[Any, ...]]:
    """All that the store holds, by clip."""
    raw = store.attributes.frame_codec == "raw"
    read = store.frames if raw else store.jpegs
    return {
        name: (
            np.asarray(read(name, range(store.grid.frames))).tolist(),
            store.log_mel(name).tobytes(),
            store.waveform(name).tobytes() if store.attributes.waveform else b"",
        )
        for name in store.staged
    }


def own_files(store: ClipStore) -> set[str]:
    """Names of the clips that have files or folders of their own."""
    folder = Path(store.location.url)
    return {
        store.video_ids[int(found.name)]
        for name in store.attributes.arrays
        for found in (folder / name / "c").glob("*")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is built once; tests change copies of it."""
    return Path(build(tmp_path_factory.mktemp("built") / "clips.zarr").location.url)


@pytest.fixture
def store(built: Path, tmp_path: Path) -> ClipStore:
    return ClipStore.open(shutil.copytree(built, tmp_path / "clips.zarr"))


@pytest.mark.parametrize("codec", ["jpeg", "raw"])
def test_packed_clips_read_as_before(tmp_path: Path, codec: str) -> None:
    opened = build(tmp_path / "clips.zarr", replace(ATTRIBUTES, frame_codec=codec))
    before, files = everything(opened), len(opened.location.names(""))
    summary = pack(opened.location.url, ROOM)
    assert (summary.clips, summary.packed, summary.now, summary.shards) == (7, 7, 7, 3)
    assert everything(opened) == before, "a store that was opened before"
    packed = ClipStore.open(opened.location.url)
    assert everything(packed) == before
    assert own_files(packed) == set()
    chunks = 2 * 3 * 7
    assert len(packed.location.names("")) == files - chunks + 2 * 3 * 3 + 4
    assert inspect(opened.location.url, verify=True).whole
    again = pack(opened.location.url)
    assert (again.packed, again.now, again.shards, again.room) == (7, 0, 0, ROOM)


def test_zarr_reads_the_shards(store: ClipStore) -> None:
    before = everything(store)
    pack(store.location.url, ROOM)
    group = zarr.open_group(store.location.url, mode="r")
    assert group["packed/frames"].shards == (ROOM, 20)
    for row, name in enumerate(IDS):
        frames, log_mel, waveform = (
            np.asarray(group[f"packed/{array}"][row]) for array in ("frames", "log_mel", "waveform")
        )
        if name == FAILED:
            assert np.isnan(log_mel).all()
            continue
        assert frames.tolist() == before[name][0]
        assert (log_mel.tobytes(), waveform.tobytes()) == before[name][1:]


def test_a_shard_is_laid_out_as_documented(store: ClipStore) -> None:
    folder = Path(store.location.url)
    chunks = {row: (folder / f"log_mel/c/{row}/1/0/0").read_bytes() for row in (3, 5)}
    pack(folder, ROOM)
    shard = (folder / "packed/log_mel/c/1/1/0/0").read_bytes()
    index = shard[-(16 * ROOM + 4) :]
    assert shard[: -len(index)] == chunks[3] + chunks[5]
    size, none = len(chunks[3]), 2**64 - 1
    assert struct.unpack("<6Q", index[:-4]) == (0, size, none, none, size, len(chunks[5]))
    assert struct.unpack("<I", index[-4:]) == (google_crc32c.value(index[:-4]),)


@pytest.mark.parametrize("place", [3, -2, -30])
@pytest.mark.parametrize("name", ["frames/c/0/0", "log_mel/c/0/0/0/0", "waveform/c/0/0"])
def test_a_flipped_bit_of_a_shard_is_found(store: ClipStore, name: str, place: int) -> None:
    """In the chunk of the first clip, in the checksum of the index, in its places."""
    pack(store.location.url, ROOM)
    before = everything(ClipStore.open(store.location.url))
    flip(Path(store.location.url) / "packed" / name, place)
    flipped = ClipStore.open(store.location.url)
    read = {"frames": flipped.jpegs, "log_mel": flipped.log_mel, "waveform": flipped.waveform}
    array = name.split("/")[0]
    with pytest.raises(StoreError, match=f"clip0: {array} is damaged"):
        read[array](*(("clip0", [0]) if array == "frames" else ("clip0",)))
    found = verify_clips(flipped)
    assert len(found) == (1 if place == 3 else ROOM)
    assert found[0].startswith(f"clip0: {array} is damaged")
    assert flipped.jpegs("clip7", [0]) == before["clip7"][0][:1]


def test_what_is_missing_is_named(store: ClipStore) -> None:
    folder = Path(store.location.url)
    pack(folder, ROOM)
    (folder / "packed/frames/c/0/1").unlink()
    found = verify_clips(ClipStore.open(folder))
    assert [line.split(": ")[0] for line in found] == ["clip0", "clip1", "clip2"]
    assert found[0].endswith("the chunk in packed/frames/c/0/1 is missing")
    with pytest.raises(StoreError, match="no frames: packed/frames/c/0/1 is missing"):
        ClipStore.open(folder).jpegs("clip1", [22])
    (folder / "packed/log_mel/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"packed/log_mel/zarr\.json is missing") as missing:
        inspect(folder, verify=True)
    assert "avel pack STORE writes it again" in missing.value.hint
    (folder / "packed/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"packed/zarr\.json is missing") as missing:
        ClipStore.open(folder).jpegs("clip7", [0])
    assert "chunk_shape" in missing.value.hint
    with pytest.raises(StoreError, match=r"packed/zarr\.json is missing"):
        inspect(folder, verify=True)
    with pytest.raises(ConfigError, match=f"has shards of {ROOM} clips, not of 64"):
        pack(folder)
    pack(folder, ROOM)
    assert ClipStore.open(folder).jpegs("clip7", [0])


def test_a_flipped_bit_in_the_form_of_the_shards_is_found(store: ClipStore) -> None:
    pack(store.location.url, ROOM)
    file = Path(store.location.url) / "packed/zarr.json"
    file.write_bytes(file.read_bytes().replace(b'"clips": 3', b'"clips": 2'))
    with pytest.raises(StoreError, match=r"packed/zarr\.json: its checksum does not match"):
        ClipStore.open(store.location.url).jpegs("clip0", [0])
    assert run(cli, ["inspect", "--verify", store.location.url]) == ERROR


def test_a_clip_that_is_staged_again_lies_in_files_of_its_own_until_the_next_call(store: ClipStore) -> None:
    location, before = store.location, everything(store)
    pack(location.url, ROOM)
    ManifestWriter(location).append([Entry("clip1", 1)])
    with pytest.raises(StoreError, match="clip1 is pending"):
        ClipStore.open(location.url).log_mel("clip1")
    ManifestWriter(location).append([stage(location, ATTRIBUTES, 1, seed=99)])
    staged = ClipStore.open(location.url)
    changed = everything(staged)
    assert {name for name in before if changed[name] != before[name]} == {"clip1"}
    assert own_files(staged) == {"clip1"}
    assert verify_clips(staged) == ()
    summary = pack(location.url)
    assert (summary.packed, summary.now, summary.shards) == (7, 1, 1)
    assert everything(staged) == everything(ClipStore.open(location.url)) == changed
    assert own_files(staged) == set()


def test_new_clips_come_into_the_shards(store: ClipStore) -> None:
    location, before = store.location, everything(store)
    pack(location.url, ROOM)
    more = replace(ATTRIBUTES, videos=len(IDS) + 2)
    prepare_store(location, more, names_of(more))
    ManifestWriter(location).append([stage(location, more, row, row) for row in (8, 9)])
    grown = ClipStore.open(location.url)
    after = everything(grown)
    assert {name: after[name] for name in before} == before
    assert verify_clips(grown) == ()
    assert pack(location.url).shards == 2  # the last one has room for clip8, and new1 begins another
    assert everything(ClipStore.open(location.url)) == after
    assert verify_clips(ClipStore.open(location.url)) == ()


@pytest.mark.parametrize("call", [1, 2, 5])
def test_what_is_packed_while_it_is_verified_is_not_called_damaged(
    store: ClipStore, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs as the folder of one clip's chunks is listed: of frames, log-mel, and another clip's."""
    names, listed = LocalLocation.names, list[str]()

    def packing_meanwhile(location: LocalLocation, folder: str) -> list[str]:
        found = names(location, folder)
        if "/c/" in folder:
            listed.append(folder)
            if len(listed) == call:
                pack(location.url, ROOM)
        return found

    monkeypatch.setattr(LocalLocation, "names", packing_meanwhile)
    assert verify_clips(store) == ()
    assert len(listed) >= call


def test_damage_is_found_although_clips_are_packed_meanwhile(store: ClipStore) -> None:
    flip(Path(store.location.url) / "waveform/c/5/0", 7)
    assert len(store.entries) == len(IDS)  # the manifest is read, then it changes
    pack(store.location.url, ROOM)
    assert [line.split(":")[0] for line in verify_clips(store)] == ["clip5"]


def test_a_shard_waits_for_the_clips_that_are_still_to_be_staged(store: ClipStore) -> None:
    ManifestWriter(store.location).append([Entry("clip7", 7)])
    summary = pack(store.location.url, ROOM)
    assert (summary.packed, summary.waiting, summary.shards) == (5, 1, 2)
    assert "1 wait" in summary.headline()
    assert own_files(store) == {"clip6", "clip7"}


def test_a_damaged_clip_stays_where_it_is_and_is_named(
    store: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(store.location.url)
    flip(folder / "waveform/c/5/0", 7)
    before = everything_but(store, "clip5")
    assert run(cli, ["pack", str(folder), "--clips", str(ROOM)]) == SOME_FAILED
    assert "6 of 7 staged clips in shards of 3, 1 damaged, the first: clip5" in capsys.readouterr().out
    assert own_files(store) == {"clip5"}
    packed = ClipStore.open(folder)
    assert everything_but(packed, "clip5") == before
    assert [line.split(":")[0] for line in verify_clips(packed)] == ["clip5"]
    ManifestWriter(store.location).append([stage(store.location, ATTRIBUTES, 5, 5)])
    assert run(cli, ["pack", str(folder)]) == DONE
    assert verify_clips(ClipStore.open(folder)) == ()


def everything_but(store: ClipStore, name: str) -> dict[str, tuple[Any, ...]]:
    """As `everything`, without a clip that cannot be read."""
    left = ClipStore.open(store.location.url)
    left.staged = tuple(each for each in store.staged if each != name)
    return everything(left)


def test_a_shard_whose_index_is_damaged_is_not_written_over(store: ClipStore) -> None:
    location = store.location
    pack(location.url, ROOM)
    shard = Path(location.url) / "packed/frames/c/0/0"
    flip(shard, -1)
    damaged = shard.read_bytes()
    ManifestWriter(location).append([stage(location, ATTRIBUTES, 1, seed=99)])
    summary = pack(location.url)
    assert sorted(summary.damaged) == ["clip0", "clip2"]
    assert shard.read_bytes() == damaged
    assert own_files(store) == {"clip1"}
    flip(shard, -1)
    assert pack(location.url).packed == 7


def test_shards_of_another_number_of_clips_are_refused(store: ClipStore, built: Path, tmp_path: Path) -> None:
    pack(store.location.url, ROOM)
    with pytest.raises(ConfigError, match="has shards of 3 clips, not of 4") as refused:
        pack(store.location.url, 4)
    assert "--clips 3" in refused.value.hint
    other = shutil.copytree(built, tmp_path / "other.zarr")
    for clips in (0, 10_001):
        with pytest.raises(ConfigError, match=f"clips={clips}: not 1 to 10000"):
            pack(other, clips)
    array = Path(store.location.url) / "packed/frames/zarr.json"
    array.write_text('{"chunk_grid": {}}')
    with pytest.raises(
        StoreError, match=r"packed/frames/zarr\.json: its chunk_grid has no chunk_shape"
    ) as damaged:
        pack(store.location.url)
    assert "avel pack STORE writes it again" in damaged.value.hint
    array.unlink()
    assert pack(store.location.url).now == 0
    assert "chunk_shape" in array.read_text()


def test_two_runs_do_not_pack_at_once_nor_beside_a_run_that_stages(store: ClipStore) -> None:
    with store.location.lock(), pytest.raises(BusyError):
        pack(store.location.url)
    assert own_files(store) == {*IDS} - {FAILED}


def test_what_a_killed_run_has_left_is_swept_and_nothing_else_is_to_be(store: ClipStore) -> None:
    left = Path(store.location.url) / "frames/c/0/zarr.0123456789abcdef0123456789abcdef.partial"
    left.touch()
    store.location.write(".run", b"a run that was killed")
    pack(store.location.url, ROOM)
    assert not left.parent.exists()
    assert store.location.read(".run") is None


class Killed(BaseException):
    """In place of the end of the process."""


def test_an_interruption_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write and every deletion is once the one before which the run ends; a second run finishes."""
    small = replace(ATTRIBUTES, grid=replace(GRID, segments=2), videos=6, waveform=False)
    built = Path(build(tmp_path / "built.zarr", small).location.url)
    expected = everything(ClipStore.open(built))
    pack(shutil.copytree(built, tmp_path / "whole.zarr"), ROOM)
    whole = files_of(tmp_path / "whole.zarr")
    steps, done = 0, {name: getattr(LocalLocation, name) for name in ("write", "write_pieces", "delete")}
    while True:
        folder = tmp_path / f"{steps}.zarr"
        store, left = ClipStore.open(shutil.copytree(built, folder)), [steps]

        def step(name: str, *args: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            done[name](*args)

        with monkeypatch.context() as patch:
            for name in done:
                patch.setattr(LocalLocation, name, lambda *args, name=name: step(name, *args))
            try:
                pack(folder, ROOM)
                ended = True
            except Killed:
                ended = False
        assert everything(store) == everything(ClipStore.open(folder)) == expected
        assert pack(folder, ROOM).packed == 5
        assert everything(ClipStore.open(folder)) == expected
        assert files_of(folder) == whole
        assert own_files(store) == set()
        if ended:
            break
        steps += 1
    assert steps > 12


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of the shards and of the arrays by name, with its bytes."""
    location = locate(folder)
    parts = ("packed", "frames", "log_mel", "waveform")
    return {name: location.read(name) or b"" for part in parts for name in location.names(part)}


def test_runs_that_are_killed_lose_nothing(store: ClipStore) -> None:
    folder, chance, longest = Path(store.location.url), random.Random(5), 0.05
    ended = kills = 0
    expected = everything(store)
    while kills < 12 or not ended:
        if not own_files(store):  # it came to its end
            ManifestWriter(locate(folder)).append(
                [
                    stage(locate(folder), ATTRIBUTES, row, row)
                    for row, name in enumerate(IDS)
                    if name != FAILED
                ]
            )
        pid = os.fork()
        if not pid:
            set_verbosity(0)
            try:
                pack(folder, ROOM)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        ended += not os.WIFSIGNALED(status)
        longest *= 1.2 if os.WIFSIGNALED(status) else 0.8
        assert everything(ClipStore.open(folder)) == expected
    assert pack(folder, ROOM).packed == 7
    assert everything(ClipStore.open(folder)) == expected
    assert verify_clips(ClipStore.open(folder)) == ()
    assert not list(folder.rglob("*.partial"))


def test_a_full_disk_costs_no_clip(built: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=12m") as disk:
        store = ClipStore.open(shutil.copytree(built, disk.path / "clips.zarr"))
        expected = everything(store)
        disk.fill()
        disk.give(100 << 10)
        arguments = ("pack", store.location.url, "--clips", str(ROOM))
        check_refusal(avel(*arguments), Path(store.location.url), "No space left on device")
        assert everything(ClipStore.open(store.location.url)) == expected
        disk.give(6 << 20)
        assert avel(*arguments).returncode == DONE
        assert everything(ClipStore.open(store.location.url)) == expected
        assert own_files(store) == set()


def test_a_store_in_a_bucket_is_packed_like_one_in_a_folder(bucket: str, store: ClipStore) -> None:
    url, before = f"{bucket}/clips.zarr", everything(store)
    remote, local = locate(url), store.location
    for name in local.names(""):
        remote.write(name, local.read(name) or b"")
    for place in (url, local.url):
        assert pack(place, ROOM).packed == 7
    for folder in ("packed", "frames", "log_mel", "waveform"):
        assert remote.names(folder) == local.names(folder)
        for name in remote.names(folder):
            assert remote.read(name) == local.read(name)
    assert everything(ClipStore.open(url)) == before
    assert verify_clips(ClipStore.open(url)) == ()
