"""A clip store: what was written is what is read, damage is found, other formats are refused."""

import errno
import io
import json
import pickle
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avel.errors import MissingPathError, StaleError, StoreError, UnknownNameError
from avel.grid import Grid
from avel.stores import clip_writer
from avel.stores.arrow import to_parquet
from avel.stores.clip_check import damaged_clips, verify_clips
from avel.stores.clip_layout import StoreAttributes, read_attributes, rows_table
from avel.stores.clip_writer import ClipWriter, check_place, flush, prepare_store, write_dataset
from avel.stores.clips import REPAIR, ClipStore
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.sample import Event, Sample, Samples, Video, Videos
from avel.stores.inspection import inspect
from avel.stores.location import LocalLocation, locate
from avel.stores.manifest import Entry, Manifest, ManifestWriter
from tests.pipeline.pretraining.clip_store import jpeg
from tests.stores.forging import forge_json

GRID = Grid(segments=12, fps=2, size=16)
ATTRIBUTES = StoreAttributes(GRID, {"size": 16}, "digest0", "jpeg", 3, waveform=True)
IDS = ("-a", "b", "black")
NOISE = np.random.default_rng(0)
LOG_MEL = NOISE.standard_normal((12, 96, 64)).astype(np.float32)
WAVEFORM = NOISE.integers(-32768, 32768, GRID.samples).astype(np.int16)
PICTURES = NOISE.integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
DATASET = Dataset(
    "test",
    "clips",
    ("Bark",),
    Samples.of((Sample(0, "-a", (Event("Bark", 0, 3),)),)),
    Videos.of((Video("-a", "-a.mp4"),)),
)


JPEGS = [jpeg(picture) for picture in PICTURES]


def build(path: Path, attributes: StoreAttributes = ATTRIBUTES) -> Path:
    """A store of three videos: two staged, in two chunks each, and one failed."""
    location = locate(path)
    prepare_store(location, attributes, IDS)
    write_dataset(location, DATASET)
    writer = ClipWriter(location, attributes.digest)
    raw = attributes.frame_codec == "raw"
    for row, pictures in ((0, PICTURES), (2, np.zeros_like(PICTURES))):
        for first in (0, 10):
            writer.write("log_mel", row, first, LOG_MEL[first : first + 10])
            if attributes.waveform:
                writer.write("waveform", row, first * 16000, WAVEFORM[first * 16000 : (first + 10) * 16000])
        for first in (0, 20):
            block = pictures[first : first + 20]
            writer.write("frames", row, first, block if raw else [jpeg(picture) for picture in block])
        flush(location, attributes, row)
    ManifestWriter(location).append(
        [
            Entry("-a", 0, "staged", settings=attributes.digest),
            Entry("b", 1, "failed", reason="no-video", settings=attributes.digest),
            Entry("black", 2, "staged", settings=attributes.digest),
        ]
    )
    return path


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    return ClipStore.open(build(tmp_path / "clips.zarr"))


def test_what_was_written_is_what_is_read(store: ClipStore) -> None:
    assert store.grid == GRID
    assert store.staged == ("-a", "black")
    assert store.jpegs("-a", [23, 0, 19, 20]) == [JPEGS[k] for k in (23, 0, 19, 20)]
    assert np.array_equal(store.log_mel("-a"), LOG_MEL)
    assert store.waveform("-a").dtype == np.int16
    assert np.array_equal(store.waveform("-a"), WAVEFORM)
    decoded = store.frames("-a", [5, 22])
    assert decoded.shape == (2, 16, 16, 3)
    assert np.array_equal(decoded[1], np.asarray(Image.open(io.BytesIO(JPEGS[22]))))
    assert store.dataset == DATASET
    assert store.entries.table.column("reason").to_pylist() == ["", "no-video", ""]
    assert verify_clips(store) == ()


def test_raw_frames_are_bit_exact_and_black_ones_exist(tmp_path: Path) -> None:
    store = ClipStore.open(build(tmp_path / "raw.zarr", replace(ATTRIBUTES, frame_codec="raw")))
    assert np.array_equal(store.frames("-a", range(24)), PICTURES)
    assert not store.frames("black", range(24)).any()
    assert verify_clips(store) == ()
    with pytest.raises(StoreError, match="holds raw frames"):
        store.jpegs("-a", [0])


def test_the_chunk_is_laid_out_as_documented(store: ClipStore) -> None:
    data = (Path(store.location.url) / "frames/c/0/1").read_bytes()
    (count,) = struct.unpack_from("<I", data)
    found, at = [], 4
    for _ in range(count):
        (size,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    assert len(data) - at == 4  # the checksum
    assert found[:4] == JPEGS[20:]
    assert found[4:] == [b""] * 16  # the last chunk is padded to its full length


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_torchvision_reads_the_same_frames(store: ClipStore) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.io import decode_jpeg

    found = [
        decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
        for data in store.jpegs("-a", range(24))
    ]
    assert np.array_equal(store.frames("-a", range(24)), np.stack(found))


def test_a_store_pickles_as_its_path(store: ClipStore) -> None:
    store.frames("-a", [0])
    assert len(pickle.dumps(store)) < 500
    assert np.array_equal(pickle.loads(pickle.dumps(store)).log_mel("-a"), LOG_MEL)


def test_only_staged_videos_can_be_read(store: ClipStore) -> None:
    with pytest.raises(StoreError, match=r"b is failed \(no-video\)"):
        store.frames("b", [0])
    with pytest.raises(UnknownNameError, match="blck"):
        store.log_mel("blck")
    with pytest.raises(StoreError, match="no frame 24, the last is 23"):
        store.jpegs("-a", [24])


def test_clips_of_other_settings_are_not_staged(store: ClipStore) -> None:
    manifest = ManifestWriter(store.location)
    manifest.append([replace(manifest.entries["black"], settings="older")])
    assert ClipStore.open(store.location.url).staged == ("-a",)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("frames/c/0/1", lambda store: store.jpegs("-a", [21])),
        ("log_mel/c/2/0/0/0", lambda store: store.log_mel("black")),
        ("waveform/c/2/1", lambda store: store.waveform("black")),
    ],
)
def test_one_flipped_bit_is_found(store: ClipStore, name: str, read: Callable[[ClipStore], object]) -> None:
    file = Path(store.location.url) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    video = "-a" if name.startswith("frames") else "black"
    with pytest.raises(StoreError, match=f"{video}.*is damaged") as raised:
        read(store)
    assert raised.value.hint == REPAIR
    (problem,) = verify_clips(store)
    assert f"{video}: " in problem
    assert "damaged" in problem


def test_missing_and_cut_chunks_are_found(store: ClipStore) -> None:
    root = Path(store.location.url)
    (root / "frames/c/0/0").unlink()
    (root / "frames/c/2/1").write_bytes((root / "frames/c/2/1").read_bytes()[:-9])
    (root / "frames/c/1").mkdir()
    (root / "frames/c/1/0").write_bytes(b"left over")
    with pytest.raises(StoreError, match="no frames: frames/c/0/0 is missing"):
        store.jpegs("-a", [0])
    missing, left, cut = verify_clips(store)
    assert missing == "-a: staged, but frames/c/0/0 is missing"
    assert left == "b: failed, but frames/c/1/0 is there"
    assert "black: frames is damaged" in cut


@pytest.mark.parametrize(
    ("number", "blamed"), [(errno.EIO, True), (errno.EACCES, True), (errno.ESTALE, False)]
)
def test_a_chunk_that_the_disk_cannot_read_is_a_fault_of_its_clip(
    store: ClipStore, number: int, blamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ClipStore.read_part

    def broken(self: ClipStore, name: str, row: int, part: slice) -> Any:
        if (name, row) == ("log_mel", 2):
            raise OSError(number, "no")
        return read(self, name, row, part)

    monkeypatch.setattr(ClipStore, "read_part", broken)
    if blamed:
        assert damaged_clips(store) == {"black": [f"log_mel cannot be read: {OSError(number, 'no')}"]}
    else:
        with pytest.raises(OSError, match="no"):
            damaged_clips(store)


def test_a_manifest_that_disagrees_is_found(store: ClipStore) -> None:
    gone = Entry("gone", 3, "staged", settings=ATTRIBUTES.digest)
    ManifestWriter(store.location).append([Entry("b", 0, "failed", reason="timeout"), gone])
    found = verify_clips(ClipStore.open(store.location.url))
    assert "b: the manifest says row 0, but rows.parquet does not" in found
    assert "gone: the manifest says row 3, but rows.parquet does not" in found


def test_new_videos_extend_the_arrays(store: ClipStore) -> None:
    prepare_store(store.location, replace(ATTRIBUTES, videos=4), (*IDS, "new"))
    opened = ClipStore.open(store.location.url)
    assert opened.video_ids[-1] == "new"
    assert opened.arrays["frames"].shape == (4, 24)
    assert opened.jpegs("-a", [3]) == [JPEGS[3]]


def test_a_store_without_waveforms_says_so_and_one_with_them_begins_anew(tmp_path: Path) -> None:
    store = ClipStore.open(build(tmp_path / "clips.zarr", replace(ATTRIBUTES, waveform=False)))
    assert "waveform" not in store.arrays
    assert verify_clips(store) == ()
    with pytest.raises(StoreError, match="holds no waveforms") as raised:
        store.waveform("-a")
    assert "with --overwrite and without --no-waveform" in raised.value.hint
    prepare_store(store.location, replace(ATTRIBUTES, digest="digest1"), IDS)
    assert not list((tmp_path / "clips.zarr/frames").glob("c/**/0"))
    assert ClipStore.open(tmp_path / "clips.zarr").arrays["waveform"].shape == (3, GRID.samples)


def test_another_form_begins_anew(store: ClipStore) -> None:
    smaller = replace(ATTRIBUTES, grid=replace(GRID, segments=2), digest="digest1")
    prepare_store(store.location, smaller, IDS)
    assert not list(Path(store.location.url).glob("frames/c/**/0"))
    assert ClipStore.open(store.location.url).arrays["log_mel"].shape == (3, 2, 96, 64)
    with pytest.raises(StaleError):
        ClipWriter(store.location, "digest0")


@pytest.mark.parametrize("settings", [{"settings": {"size": 17}, "digest": "digest1"}, {}])
def test_a_writer_that_outlives_its_run_writes_nothing_more(
    store: ClipStore, settings: dict[str, object]
) -> None:
    writer = ClipWriter(store.location, ATTRIBUTES.digest)
    before = {name: store.location.read(name) for name in store.location.names("")}
    prepare_store(store.location, replace(ATTRIBUTES, **settings), IDS, "the next run")
    for attempt in (
        lambda: writer.write("frames", 0, 0, JPEGS[:20]),
        lambda: writer.write("log_mel", 0, 0, LOG_MEL[:10]),
        lambda: writer.erase(0),
        lambda: flush(writer.location, writer.attributes, 0),
    ):
        with pytest.raises(StaleError, match="another run"):
            attempt()
    after = {name: store.location.read(name) for name in store.location.names("")}
    assert {name for name in after if after[name] != before[name]} == ({"zarr.json"} if settings else set())


def test_a_machine_that_does_not_see_the_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{socket.gethostname()} does not see .*nowhere") as unseen:
        ClipWriter(locate(tmp_path / "nowhere"), "digest0")
    assert "same absolute paths" in unseen.value.hint


@pytest.mark.parametrize("cut_at", ["delete", "array_spec", "as_json"])
def test_a_kill_while_the_form_changes_leaves_no_store(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch, cut_at: str
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = {"delete": LocalLocation, "array_spec": clip_writer, "as_json": StoreAttributes}[cut_at]
    other = replace(ATTRIBUTES, grid=replace(GRID, segments=2), digest="digest1")
    with monkeypatch.context() as patched:
        patched.setattr(place, cut_at, cut)
        with pytest.raises(KeyboardInterrupt):
            prepare_store(store.location, other, IDS)
    assert read_attributes(store.location) is None
    prepare_store(store.location, ATTRIBUTES, IDS)  # the settings were changed back
    assert ClipStore.open(store.location.url).arrays["log_mel"].shape == (3, 12, 96, 64)


def test_arrays_of_another_form_than_the_store_says_are_found(tmp_path: Path) -> None:
    path = build(tmp_path / "clips.zarr")

    def longer(document: dict) -> dict:
        document["attributes"]["grid"]["segments"] = 24
        return document

    forge_json(path / "zarr.json", longer)
    with pytest.raises(StoreError, match=r"frames/zarr.json: shape is \(24,\), the store's settings ask for"):
        verify_clips(ClipStore.open(path))


def test_a_chunk_of_fewer_frames_is_damage(store: ClipStore, tmp_path: Path) -> None:
    few = replace(ATTRIBUTES, grid=replace(GRID, segments=2))
    prepare_store(locate(tmp_path / "few.zarr"), few, IDS)
    ClipWriter(locate(tmp_path / "few.zarr"), few.digest).write("frames", 0, 0, JPEGS[:4])
    name = "frames/c/0/0"
    (Path(store.location.url) / name).write_bytes((tmp_path / "few.zarr" / name).read_bytes())
    with pytest.raises(StoreError, match="-a: frames is damaged: it holds 4 elements, not 16"):
        store.jpegs("-a", [15])


@pytest.mark.parametrize(
    "picture",
    [b"\xff\xd8 no picture \xff\xd9", *(jpeg(PICTURES[0][:8, :8]), jpeg(np.zeros((32, 32, 3), np.uint8)))],
)
def test_a_frame_that_is_no_picture_of_the_stores_size_is_damage(store: ClipStore, picture: bytes) -> None:
    """With a right checksum, so of somebody who made the chunk on purpose."""
    ClipWriter(store.location, ATTRIBUTES.digest).write("frames", 0, 0, [picture] * 20)
    with pytest.raises(StoreError, match="-a: frames is damaged: "):
        ClipStore.open(store.location.url).frames("-a", [0])


def test_a_store_whose_making_was_cut_short_is_none(tmp_path: Path) -> None:
    path = build(tmp_path / "clips.zarr")
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(document | {"attributes": {}}))
    assert read_attributes(locate(path)) is None
    with pytest.raises(
        StoreError, match=r"clips\.zarr: an unfinished clip store, which holds no clip yet\n.*extract command"
    ):
        ClipStore.open(path)
    build(path)
    assert verify_clips(ClipStore.open(path)) == ()


def test_a_damaged_store_says_what_to_do(tmp_path: Path) -> None:
    path = build(tmp_path / "clips.zarr")
    (path / "frames" / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"no frames/zarr\.json") as missing:
        check_place(locate(path))
    (path / "zarr.json").write_bytes((path / "zarr.json").read_bytes()[:100])
    with pytest.raises(StoreError, match=r"zarr\.json is damaged") as damaged:
        ClipStore.open(path)
    assert "stages all clips again" in missing.value.hint == damaged.value.hint


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no clip store"):
        ClipStore.open(tmp_path / "nothing")
    path = build(tmp_path / "clips.zarr")
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["version"] = 99
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="version 99"):
        ClipStore.open(path)


def test_rows_that_a_killed_run_did_not_make_are_left_out(store: ClipStore) -> None:
    store.location.write("rows.parquet", to_parquet(rows_table((*IDS, "later"))))
    assert ClipStore.open(store.location.url).video_ids == IDS
    store.location.write("rows.parquet", to_parquet(rows_table(IDS[:2])))
    with pytest.raises(StoreError, match=r"2 videos, zarr\.json says 3"):
        ClipStore.open(store.location.url).jpegs("-a", [0])


def test_a_worker_that_opens_the_store_reads_no_ids(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        LocalLocation, "read", lambda self, name: read.append(name) or (self.path / name).read_bytes()
    )
    ClipWriter(store.location, ATTRIBUTES.digest)
    assert read == ["zarr.json"]
    assert "black" not in (Path(store.location.url) / "zarr.json").read_text()


def test_what_is_asked_of_all_clips_makes_no_entry_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As objects a million entries take a minute and gigabytes."""
    location, names = locate(build(tmp_path / "s.zarr")), [f"v{number}" for number in range(300)]
    prepare_store(location, replace(ATTRIBUTES, videos=303), (*IDS, *names))
    ManifestWriter(location).append([Entry(name, row, "pending") for row, name in enumerate(names, 3)])
    monkeypatch.setattr(Manifest, "blocks", None)  # which makes them
    found = inspect(tmp_path / "s.zarr")
    assert (found.facts["videos"], found.facts["staged"], found.facts["states"]["pending"]) == (303, 2, 300)
    assert found.problems[0].startswith("300 videos not staged yet: v0, v1")
    assert np.array_equal(ClipStore.open(tmp_path / "s.zarr").log_mel("-a"), LOG_MEL)


def test_an_object_store_is_asked_once_a_second_whose_run_it_is(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    writer = ClipWriter(store.location, ATTRIBUTES.digest)
    monkeypatch.setattr(clip_writer, "LocalLocation", type(None))  # as if it were none
    monkeypatch.setattr(clip_writer, "check_run", lambda location, run: asked.append(run))
    monkeypatch.setattr(clip_writer, "CHECK_SECONDS", 1000.0)
    for first in (0, 10):
        writer.write("log_mel", 0, first, LOG_MEL[first : first + 10])
    assert len(asked) == 1
    monkeypatch.setattr(clip_writer, "CHECK_SECONDS", -1.0)
    writer.write("log_mel", 0, 0, LOG_MEL[:10])
    assert len(asked) == 2
