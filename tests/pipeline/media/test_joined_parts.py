"""Files whose time stamps start again: no part of a joined file is lost without a word."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avel.grid import Grid
from tests.media import Film, compose, find_clicks, read_number, steady
from tests.pipeline.media.reading import on_screen, read

SECONDS = 4
FILM = Film(steady(25, SECONDS), 64, 64, clicks=(1.0, 3.0), sound_seconds=float(SECONDS))
"""Shorter than the grid; two of them join to 8 s."""

KINDS: "dict[str, Film]" = {
    "ts": FILM,
    "m2ts": FILM,
    "mkv": FILM,
    "mpg": replace(FILM, codec="mpeg2video", sound_codec="mp2", options={"bf": "2"}, tick=Fraction(1, 25)),
    "avi": replace(FILM, tick=Fraction(1, 25)),
}


def later(film: Film, seconds: int) -> Film:
    """The film with all of its time stamps later."""
    return replace(
        film,
        times=[time + seconds for time in film.times],
        sound_start=Fraction(seconds),
        clicks=[click + seconds for click in film.clicks or ()],
    )


def join(target: Path, *parts: Path) -> Path:
    """Writes the bytes of all parts into one file."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def numbers(path: Path) -> "tuple[list[int], np.ndarray, str, float]":
    """The number on screen at each slot, the samples, the damage and the valid seconds."""
    frames, samples, info = read(path)
    return [read_number(frame) for frame in frames], samples, info.damage, info.valid_seconds


@pytest.mark.parametrize("kind", KINDS)
def test_both_parts_of_a_joined_file_are_shown_and_heard(tmp_path: Path, kind: str) -> None:
    part = compose(tmp_path / f"part.{kind}", KINDS[kind])
    shown, samples, damage, valid = numbers(join(tmp_path / f"joined.{kind}", part, part))
    alone, alone_samples, _, alone_valid = numbers(part)
    seam, reach = round(alone_valid * 16), 16 * SECONDS - 4
    assert valid == pytest.approx(2 * alone_valid, abs=0.05)
    assert shown[:reach] == alone[:reach]
    assert shown[seam + 2 : seam + reach] == pytest.approx(alone[2:reach], abs=2)  # up to a slot later
    clicks = find_clicks(alone_samples)
    assert len(clicks) == 2
    both = [*clicks, *(click + alone_valid for click in clicks)]
    assert find_clicks(samples) == pytest.approx(both, abs=0.05)
    assert "overlaps" not in damage
    if kind != "avi":  # counts its pictures, and has no time stamps to start again
        assert damage.startswith(f"time stamps start again at {alone_valid:.2f} s: joined there")


@pytest.mark.parametrize("kind", ["ts", "mkv", "mpg"])
def test_a_part_with_far_smaller_time_stamps_follows_too(tmp_path: Path, kind: str) -> None:
    high = compose(tmp_path / f"high.{kind}", later(KINDS[kind], 1000))
    low = compose(tmp_path / f"low.{kind}", KINDS[kind])  # FFmpeg takes it for an overflow of MPEG's clock
    shown, samples, damage, valid = numbers(join(tmp_path / f"joined.{kind}", high, low))
    assert valid == pytest.approx(2 * SECONDS, abs=0.1)
    assert [shown[16], shown[16 * (SECONDS + 1)]] == pytest.approx([24, 24], abs=2)
    assert len(find_clicks(samples)) == 4
    assert "joined there" in damage


def test_audio_that_begins_in_a_later_part_is_in_time_with_it(tmp_path: Path) -> None:
    silent = compose(tmp_path / "silent.ts", replace(FILM, clicks=None))
    part = compose(tmp_path / "part.ts", FILM)
    shown, samples, _, _ = numbers(join(tmp_path / "joined.ts", silent, part))
    priming = 1024 / 44100  # of the audio's encoder
    assert find_clicks(samples) == pytest.approx([SECONDS + each + priming for each in (1, 3)], abs=0.01)
    assert shown[16 * (SECONDS + 2)] == pytest.approx(50, abs=1)


def test_many_parts_without_audio(tmp_path: Path) -> None:
    part = compose(tmp_path / "part.ts", replace(FILM, times=steady(25, 2), clicks=None))
    path = join(tmp_path / "joined.ts", *[part] * 7)
    shown, _, damage, valid = numbers(path)
    assert shown == on_screen(steady(25, 2), 32) * 5
    assert valid == 10.0
    assert damage == "time stamps start again at 2.00 s, and 5 times more: joined there"


def test_a_joined_film_that_is_not_held_in_memory_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = compose(tmp_path / "part.ts", FILM)
    path = join(tmp_path / "joined.ts", part, part)
    frames, samples, _ = read(path)
    monkeypatch.setattr("avel.pipeline.media.scan.MOST_PACKET_BYTES", 1000)
    again, again_samples, _ = read(path)
    np.testing.assert_array_equal(frames, again)
    np.testing.assert_array_equal(samples, again_samples)


@pytest.mark.parametrize("kind", ["mp4", "flv"])
def test_what_ffmpeg_does_not_read_is_named(tmp_path: Path, kind: str) -> None:
    part = compose(tmp_path / f"part.{kind}", FILM)
    size = part.stat().st_size
    shown, _, damage, valid = numbers(join(tmp_path / f"joined.{kind}", part, part))
    assert shown == numbers(part)[0]
    assert valid == pytest.approx(SECONDS, abs=0.1)
    assert damage == f"another file that was joined to it at byte {size} is not read"
    with_rest = tmp_path / f"rest.{kind}"
    with_rest.write_bytes(part.read_bytes() + bytes(1000))
    assert read(with_rest)[2].damage == ""
    short = Grid(2, size=64)  # needs nothing of the second file
    assert read(tmp_path / f"joined.{kind}", short)[2].damage == ""


def test_of_three_matroska_files_the_third_is_named(tmp_path: Path) -> None:
    part = compose(tmp_path / "part.mkv", replace(FILM, times=steady(25, 2), sound_seconds=2.0))
    path = join(tmp_path / "joined.mkv", part, part, part)
    assert f"at byte {2 * part.stat().st_size} is not read" in read(path)[2].damage


def stamp_back(path: Path, kinds: set[int], after: int, back: int) -> Path:
    """Stamps the tags of an FLV file (8 audio, 9 video) from `after` ms on `back` ms earlier."""
    data, place = bytearray(path.read_bytes()), 13
    while place + 11 < len(data):
        milliseconds = int.from_bytes(data[place + 4 : place + 7])
        if data[place] in kinds and milliseconds >= after:
            data[place + 4 : place + 7] = (milliseconds - back).to_bytes(3)
        place += 11 + int.from_bytes(data[place + 1 : place + 4]) + 4
    path.write_bytes(data)
    return path


PLAIN = replace(
    FILM, times=steady(25, 8), sound_seconds=8.0, clicks=(1.0, 3.0, 5.0, 7.0), options={"bf": "0"}
)


@pytest.mark.parametrize(("kinds", "alone"), [({8}, "audio"), ({9}, "video")])
def test_a_leap_of_one_stream_alone_is_not_followed_but_named(
    tmp_path: Path, kinds: set[int], alone: str
) -> None:
    path = stamp_back(compose(tmp_path / "clip.flv", PLAIN), kinds, 4000, 2000)
    shown, samples, damage, _ = numbers(path)
    assert f"time stamps of the {alone} alone leap back: 1, not followed" in damage
    plain, plain_samples, _, _ = numbers(compose(tmp_path / "plain.flv", PLAIN))
    if alone == "audio":  # the pictures keep their clock
        assert shown == plain
    else:
        np.testing.assert_array_equal(samples, plain_samples)


def test_a_leap_of_all_streams_is_followed_in_any_container(tmp_path: Path) -> None:
    path = stamp_back(compose(tmp_path / "clip.flv", PLAIN), {8, 9}, 4000, 3000)
    shown, samples, damage, valid = numbers(path)
    assert damage.startswith("time stamps start again at")
    assert valid == pytest.approx(8.0, abs=0.15)
    assert len(find_clicks(samples)) == 4
    assert len(set(shown)) > 120  # of 128 slots


def test_b_pictures_are_no_leaps(tmp_path: Path) -> None:
    for kind in ("ts", "mkv", "flv"):
        film = replace(FILM, times=steady(25), sound_seconds=10.4, options={"bf": "16", "b-pyramid": "2"})
        assert read(compose(tmp_path / f"clip.{kind}", film))[2].damage == ""
