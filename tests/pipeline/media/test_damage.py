"""Files that lie, break off or are something else: staged with what came, or refused with its reason."""

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from avel.errors import AvelError
from avel.pipeline.media.refusal import ClipRefused
from avel.stores.manifest import Reason
from tests.media import Film, compose, find_clicks, forge_ticks, read_number, steady
from tests.pipeline.media.reading import on_screen, read

FILM = Film(steady(25), options={"g": "25", "bf": "0"})
FIRST = {"movflags": "faststart"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, Path]":
    """One film in three containers, and as MP4 with its index in front."""
    folder = tmp_path_factory.mktemp("whole")
    films = {suffix: compose(folder / f"film.{suffix}", FILM) for suffix in ("mp4", "mkv", "ts")}
    return films | {"faststart": compose(folder / "fast.mp4", replace(FILM, form=FIRST))}


def cut(source: Path, target: Path, fraction: float) -> Path:
    """The first `fraction` of a file's bytes; of those after the index where an MP4 has that in front."""
    data = source.read_bytes()
    start = data.find(b"mdat") if 0 < data.find(b"moov") < data.find(b"mdat") else 0
    target.write_bytes(data[: start + int((len(data) - start) * fraction)])
    return target


@pytest.mark.parametrize("kind", ["faststart", "mkv", "ts"])
@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_a_file_that_breaks_off_is_staged_with_what_came(
    whole: "dict[str, Path]", tmp_path: Path, kind: str, fraction: float
) -> None:
    path = cut(whole[kind], tmp_path / whole[kind].name, fraction)
    frames, samples, info = read(path)
    assert (frames.shape[0], len(samples)) == (160, 160000)
    assert 1.5 < info.valid_seconds < 8
    shown = [read_number(frame) for frame in frames]
    due = on_screen([time + Fraction(2090, 90000) * (kind == "ts") for time in FILM.times])
    came = int(info.video_end_seconds * 16) - 2
    assert shown[:came] == due[:came]
    assert len(set(shown[came + 4 :])) == 1  # the last picture held
    assert not samples[int((info.audio_end_seconds + 0.2) * 16000) :].any()
    if kind == "faststart":  # MPEG-TS promises nothing, and Matroska's promise is of the whole file
        assert "the video ends at" in info.damage


def test_bytes_that_are_no_sound_or_picture_cost_only_their_own_time(
    whole: "dict[str, Path]", tmp_path: Path
) -> None:
    data = bytearray(whole["faststart"].read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(range(200)) * 3
    path = tmp_path / "scratched.mp4"
    path.write_bytes(data)
    frames = read(path)[0]
    shown = np.array([read_number(frame) for frame in frames])
    wrong = np.flatnonzero(shown != on_screen(FILM.times))
    assert len(wrong) <= 2 * 16 + 1  # until the next key picture


def test_a_leap_of_the_time_stamps_is_on_record(tmp_path: Path) -> None:
    times = [time if time < 3 else time + 92 for time in steady(25)]
    frames, _, info = read(compose(tmp_path / "leap.ts", Film(times, sound_seconds=3.0)))
    assert (frames[50:] == frames[50]).all()
    assert info.damage == "no new video between 2.98 s and 95.02 s"


def test_sound_in_packets_longer_than_a_segment_is_not_remarked_on(tmp_path: Path) -> None:
    film = Film(steady(5), 32, 32, sound_codec="pcm_s16le", sample_rate=16000, sound_block=40000)
    samples, info = read(compose(tmp_path / "long.mkv", film))[1:]
    assert find_clicks(samples) == pytest.approx(film.clicks, abs=0.001)
    assert info.damage == ""


FORGED: "dict[str, tuple[str, dict[str, int], str]]" = {
    "sound in a hundredth of its time": (
        "soun",
        {"faster": 100},
        r"overlaps in the audio: \d+, 10\.\d\d s left out",
    ),
    "sound without time": ("soun", {"steps": False}, r"the audio ends at 0\.0\d s of 10\.00 s"),
    "pictures in a hundredth of their time": ("vide", {"faster": 100}, r"260 pictures within 0\.10 s"),
}


@pytest.mark.parametrize("name", FORGED)
def test_an_index_that_lies_about_time_is_on_record(
    whole: "dict[str, Path]", tmp_path: Path, name: str
) -> None:
    kind, how, remark = FORGED[name]
    info = read(forge_ticks(whole["mp4"], tmp_path / "forged.mp4", kind, **how))[2]
    assert re.fullmatch(remark, info.damage)
    assert min(info.video_end_seconds, info.audio_end_seconds) < 0.2


SECONDS_BEFORE, SECONDS_AFTER = 4, 7
"""Where a hole begins and ends in a film of fragments of one second."""


def fragmented(path: Path, flags: str, fill: Callable[[int], bytes]) -> tuple[Path, int]:
    """Writes a film without the fragments of 3 of its seconds, and returns where the next one begins."""
    film = replace(
        FILM,
        times=steady(25, 10.0),
        clicks=(2.5, 5.5, 8.5),
        sound_seconds=10.0,
        options={"g": "25", "bf": "0", "sc_threshold": "0"},
        form={"movflags": flags},
    )
    data = compose(path, film).read_bytes()
    starts = [at - 4 for at in range(len(data)) if data[at : at + 4] == b"moof"]
    first, last = starts[SECONDS_BEFORE], starts[SECONDS_AFTER]
    hole = fill(last - first)
    path.write_bytes(data[:first] + hole + data[last:])
    return path, first + len(hole)


def test_what_follows_a_hole_between_fragments_keeps_its_time(tmp_path: Path) -> None:
    flags = "frag_keyframe+empty_moov+default_base_moof"
    path, _ = fragmented(tmp_path / "a.mp4", flags, lambda size: b"")
    frames, samples, info = read(path)
    shown = [read_number(frame) for frame in frames]
    due = on_screen(steady(25, 10.0, start=Fraction(1024, 44100)))  # after the priming of the audio's encoder
    assert (shown[:64], shown[114:]) == (due[:64], due[114:])
    assert find_clicks(samples) == pytest.approx([2.523, 8.523], abs=0.002)
    assert info.valid_seconds == 10
    assert info.damage == (
        "no new video between 3.98 s and 7.02 s; "
        "gaps in the audio: 1, 3.00 s of silence, the longest from 4.04 s to 7.04 s"
    )


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "dash+frag_keyframe+empty_moov"])
def test_fragments_that_are_lost_behind_a_hole_are_named(tmp_path: Path, flags: str) -> None:
    path, lost = fragmented(tmp_path / "a.mp4", flags, bytes)  # zeros
    frames, samples, info = read(path)
    assert read_number(frames[-1]) == 99
    assert find_clicks(samples) == pytest.approx([2.523], abs=0.002)
    assert info.valid_seconds == pytest.approx(4, abs=0.1)
    assert info.damage == f"fragments from byte {lost} on are not read: bytes are missing before them"


def _cut(kind: str, fraction: float) -> "Callable[[dict[str, Path], Path], Path]":
    return lambda whole, folder: cut(whole[kind], folder / whole[kind].name, fraction)


def _bytes(data: bytes) -> "Callable[[dict[str, Path], Path], Path]":
    def write(whole: "dict[str, Path]", folder: Path) -> Path:
        (folder / "clip.mp4").write_bytes(data)
        return folder / "clip.mp4"

    return write


def _joined(whole: "dict[str, Path]", folder: Path) -> Path:
    (folder / "clip.mp4").write_bytes(whole["mp4"].read_bytes())
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    return folder / "list.mp4"


def _unknown_codec(whole: "dict[str, Path]", folder: Path) -> Path:
    (folder / "clip.mp4").write_bytes(whole["mp4"].read_bytes().replace(b"avc1", b"zzzz"))
    return folder / "clip.mp4"


REFUSED: "dict[str, tuple[Callable[[dict[str, Path], Path], Path], str]]" = {
    "no file": (lambda whole, folder: folder / "none.mp4", "missing"),
    "a folder": (lambda whole, folder: folder, "missing"),
    "no bytes": (_bytes(b""), "empty"),
    "text": (_bytes(b"Category&VideoID&Quality&StartTime&EndTime\n" * 50), "unreadable"),
    "noise": (_bytes(np.random.default_rng(0).bytes(20000)), "unreadable"),
    "a playlist of other files": (
        _bytes(b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        "unreadable",
    ),
    "a list of files to join": (_joined, "unreadable"),
    "a codec nobody knows": (_unknown_codec, "unsupported"),
    "MP4 without its index": (_cut("mp4", 0.7), "truncated"),
    "MP4 cut within its index": (_cut("faststart", -0.1), "truncated"),
    "MP4 of headers only": (_cut("faststart", 0.001), "truncated"),
    "MP4 of 32 bytes": (_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"), "truncated"),
    "Matroska of headers only": (_cut("mkv", 0.004), "unreadable"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_staged_is_refused_with_its_reason(
    whole: "dict[str, Path]", tmp_path: Path, name: str
) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(ClipRefused) as refusal:
        read(make(whole, tmp_path))
    assert refusal.value.reason == reason
    assert refusal.value.detail
    assert reason != "truncated" or "Invalid data" not in refusal.value.detail  # FFmpeg says so of anything


def test_a_refusal_survives_its_way_between_processes() -> None:
    for reason in get_args(Reason):
        refusal = pickle.loads(pickle.dumps(ClipRefused(reason, "why")))
        assert (refusal.reason, refusal.detail) == (reason, "why")
        assert isinstance(refusal, AvelError)


@pytest.mark.slow
def test_a_film_of_two_hours_is_read_in_bounded_memory(tmp_path: Path) -> None:
    film = Film(steady(1, 7200), 16, 16, codec="mjpeg", pixel_format="yuvj420p", tick=Fraction(1, 1000))
    film = replace(
        film, sound_codec="pcm_s16le", sample_rate=4000, sound_seconds=7200.0, clicks=[1.0, 7199.0]
    )
    path = compose(tmp_path / "film.mkv", replace(film, paint=_grey))
    assert path.stat().st_size > 55e6  # more than is held in memory
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from avel.grid import Grid\n"
        "from avel.pipeline.media.reading import open_media\n"
        "with open_media(sys.argv[1], Grid(segments=7200, size=48)) as media:\n"
        "    frames = sum(len(chunk) for chunk in media.frames())\n"
        "    loud = [round(float(n) / 16000 + k * 10, 2) for k, chunk in enumerate(media.samples())\n"
        "            for n in [abs(chunk).argmax()] if abs(chunk).max() > 0.5]\n"
        "status = Path('/proc/self/status').read_text()  # getrusage counts what pytest held at the fork\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) // 1024\n"
        "print(frames, loud, peak)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    frames, first, last, peak_mib = done.stdout.replace("[", "").replace("]", "").replace(",", "").split()
    assert int(frames) == 7200 * 16
    assert (float(first), float(last)) == (1.0, 7199.0)
    assert int(peak_mib) < 400


def _grey(number: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), number % 256, np.uint8)
