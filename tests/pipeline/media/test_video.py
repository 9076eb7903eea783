"""Each slot of the grid shows the picture that is on screen then, whatever the file does with time."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avel.grid import Grid
from avel.pipeline.media import scan as scan_module
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from tests.media import Film, compose, read_number, remux, steady, uneven, unstamp
from tests.pipeline.media.reading import on_screen, read

NTSC = Fraction(30000, 1001)
FRAME = Fraction(1, 25)
PRIMING = Fraction(2090, 90000)
"""1024 samples of AAC before the sound proper, in MPEG-TS presented, and first: the clip begins there."""

X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
VPX = {"cpu-used": "8", "deadline": "realtime"}
BASE = Film(steady(25))

CASES: dict[str, tuple[str, Film, Fraction]] = {
    # name: suffix, film, and by how much the container presents the pictures later than composed
    "25 fps": ("mp4", BASE, Fraction(0)),
    "29.97 fps": ("mp4", Film(steady(NTSC)), Fraction(0)),
    "30 fps": ("mp4", Film(steady(30)), Fraction(0)),
    "60 fps": ("mp4", Film(steady(60)), Fraction(0)),
    "slower than the grid": ("mp4", Film(steady(Fraction(15, 2))), Fraction(0)),
    "1 fps": ("mp4", Film(steady(1)), Fraction(0)),
    "variable": ("mp4", Film(uneven()), Fraction(0)),
    "variable, B pyramid": ("mp4", Film(uneven(seed=1), options={"bf": "7", "b_strategy": "2"}), Fraction(0)),
    "many B pictures": ("mp4", replace(BASE, options={"x264-params": "bframes=16:b-adapt=0"}), Fraction(0)),
    "no B pictures": ("mp4", replace(BASE, options={"bf": "0"}), Fraction(0)),
    "open GOPs": ("mp4", replace(BASE, options={"x264-params": "open-gop=1:keyint=20"}), Fraction(0)),
    "interlaced": ("mp4", replace(BASE, options={"x264-params": "interlaced=1"}), Fraction(0)),
    "10 bit": ("mp4", replace(BASE, pixel_format="yuv420p10le"), Fraction(0)),
    "odd size": ("mkv", replace(BASE, width=131, height=77, codec="ffv1"), Fraction(0)),
    "tall": ("mp4", replace(BASE, width=34, height=420), Fraction(0)),
    "late picture": ("mp4", Film(steady(25, start=Fraction(1, 2))), Fraction(0)),
    "late sound": ("mp4", replace(BASE, sound_start=Fraction(1, 2)), Fraction(0)),
    "no sound": ("mp4", replace(BASE, clicks=None), Fraction(0)),
    "longer": ("mp4", Film(steady(25, 14)), Fraction(0)),
    "shorter": ("mp4", Film(steady(25, Fraction(23, 10)), sound_seconds=2.3, clicks=(0.5,)), Fraction(0)),
    "fragments": ("mp4", replace(BASE, form={"movflags": "frag_keyframe+empty_moov"}), 2 * FRAME),
    "no edit list": ("mp4", replace(BASE, form={"use_editlist": "0"}), 2 * FRAME),
    "Matroska": ("mkv", BASE, Fraction(0)),
    "Matroska, late picture": ("mkv", Film(steady(25, start=Fraction(1, 2))), Fraction(0)),
    "MPEG-TS": ("ts", BASE, PRIMING),
    "MPEG-TS without sound": ("ts", replace(BASE, clicks=None), Fraction(0)),
    "FLV": ("flv", BASE, Fraction(23, 1000)),
    "HEVC": ("mp4", replace(BASE, codec="libx265", options=X265), Fraction(0)),
    "VP9": (
        "webm",
        replace(BASE, codec="libvpx-vp9", options=VPX, sound_codec="libopus", sample_rate=48000),
        Fraction(0),
    ),
    "AVI, H.264": ("avi", replace(BASE, tick=FRAME), Fraction(0)),
    "AVI, MPEG-4": (
        "avi",
        replace(BASE, codec="mpeg4", options={"bf": "2"}, tick=FRAME, sound_codec="pcm_s16le"),
        Fraction(0),
    ),
    "Motion JPEG": ("mov", replace(BASE, codec="mjpeg", pixel_format="yuvj420p"), Fraction(0)),
}


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, Path]":
    """The films of CASES, each composed when it is first asked for."""
    folder = tmp_path_factory.mktemp("films")

    class Films(dict):
        def __missing__(self, name: str) -> Path:
            suffix, film, _ = CASES[name]
            self[name] = compose(folder / f"{len(self)}.{suffix}", film)
            return self[name]

    return Films()


@pytest.mark.parametrize("name", CASES)
def test_every_slot_shows_the_picture_on_screen(composed: "dict[str, Path]", name: str) -> None:
    film, later = CASES[name][1:]
    frames, samples, info = read(composed[name])
    assert len(frames) == 160
    assert len(samples) == 160000
    assert [read_number(frame) for frame in frames] == on_screen([time + later for time in film.times])
    assert info.damage == ""


@pytest.mark.parametrize("name", ["25 fps", "variable, B pyramid", "MPEG-TS", "HEVC", "late picture"])
def test_a_film_that_is_read_twice_from_disk_gives_the_same(
    composed: "dict[str, Path]", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = read(composed[name])
    monkeypatch.setattr(scan_module, "MOST_PACKET_BYTES", 1000)
    streamed = read(composed[name])
    np.testing.assert_array_equal(in_memory[0], streamed[0])
    np.testing.assert_array_equal(in_memory[1], streamed[1])
    assert in_memory[2] == streamed[2]


def test_frames_come_in_chunks_and_can_be_read_again(composed: "dict[str, Path]") -> None:
    grid = Grid(segments=23, segment_seconds=0.5, size=16)
    with open_media(composed["longer"], grid) as media:
        first = list(media.frames())
        again = list(media.frames(1))
        sound = [len(chunk) for chunk in media.samples()]
    assert [len(chunk) for chunk in first] == [80, 80, 24]
    assert [len(chunk) for chunk in again] == [8] * 23
    assert sound == [80000, 80000, 24000]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    longer = Grid(segments=12, segment_seconds=1.0, size=16)
    whole = read(composed["longer"], longer)[0]
    np.testing.assert_array_equal(np.concatenate(first), whole[:184])


def test_the_end_of_a_short_film_is_held_and_its_length_recorded(composed: "dict[str, Path]") -> None:
    frames, samples, info = read(composed["shorter"])
    assert info.valid_seconds == pytest.approx(2.3, abs=0.03)
    assert (frames[40:] == frames[39]).all()
    assert not samples[int(2.4 * 16000) :].any()


@pytest.mark.parametrize("kept", [lambda n: n != 120, lambda n: n % 2 == 0, lambda n: n % 12 == 0])
def test_pictures_without_a_time_stamp_follow_the_one_before(
    tmp_path: Path, kept: Callable[[int], bool]
) -> None:
    film = replace(BASE, tick=FRAME)  # so that the codec knows the usual step
    path = compose(tmp_path / "whole.ts", film)
    path = unstamp(path, tmp_path / "bare.ts", lambda number: not kept(number))
    frames, _, info = read(path)
    assert [read_number(frame) for frame in frames] == on_screen([time + PRIMING for time in BASE.times])
    bare = sum(not kept(number) for number in range(len(BASE.times)))
    assert info.damage == f"video packets without a time: {bare}"


def test_pictures_before_an_edit_list_are_decoded_and_not_shown(
    composed: "dict[str, Path]", tmp_path: Path
) -> None:
    cut = remux(composed["25 fps"], tmp_path / "cut.mp4", Fraction(3, 2))
    frames, samples, info = read(cut)
    numbers = np.array([read_number(frame) for frame in frames])
    # picture 37 straddles the cut; libavformat leaves it out and moves the rest by less than one picture
    expected = np.array(on_screen([time - Fraction(3, 2) for time in steady(25)]))
    assert numbers[0] == 38
    assert set((numbers - expected).tolist()) <= {0, 1}
    assert info.valid_seconds == pytest.approx(8.9, abs=0.03)
    assert abs(samples[int(2.5 * 16000) - 8 : int(2.5 * 16000) + 8]).max() > 0.5


def test_a_picture_stream_that_starts_after_the_grid_is_no_video(tmp_path: Path) -> None:
    film = Film(steady(25, 1, start=Fraction(12)))
    path = compose(tmp_path / "after.mp4", film)
    with pytest.raises(ClipRefused, match="the video starts 12"):
        read(path)
