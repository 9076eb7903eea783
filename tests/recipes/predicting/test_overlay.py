"""The copy with events drawn in: every picture at its time and the audio of the head, from any container."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avel.recipes.predicting.events import FoundEvent, VideoEvents
from avel.recipes.predicting.overlay import write_preview
from tests.media import Film, compose, find_clicks, number_picture, steady, turn

SECONDS = 3
FILM = Film(steady(25, SECONDS), 128, 96, clicks=(1.0, 2.5), sound_seconds=float(SECONDS))
LATE = replace(FILM, times=[time + 1 for time in steady(25, SECONDS - 1)])
MPEG = {"codec": "mpeg2video", "sound_codec": "mp2", "tick": Fraction(1, 25)}


def _unknown(path: Path) -> Path:
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"apac", 1).replace(b"esds", b"none", 1))
    return path


def _joined(path: Path) -> Path:
    path.write_bytes(path.read_bytes() * 2)
    return path


CASES: "dict[str, tuple[str, Film, Callable[[Path], Path]]]" = {
    "MP4": ("mp4", FILM, Path),
    "audio first": ("mp4", LATE, Path),
    "audio first, MPEG-TS": ("ts", LATE, Path),
    "AVI": ("avi", replace(FILM, tick=Fraction(1, 25)), Path),
    "MPEG-PS": ("mpg", replace(FILM, **MPEG), Path),
    "Matroska": ("mkv", FILM, Path),
    "no audio": ("mp4", replace(FILM, clicks=None), Path),
    "audio without decoder": ("mp4", FILM, _unknown),
    "raw H.264": ("h264", replace(FILM, clicks=None), Path),
    "joined": ("ts", replace(FILM, times=steady(25, 1), sound_seconds=1.0, clicks=(0.5,)), _joined),
    "turned": ("mp4", FILM, lambda path: turn(path, 0, 1, -1, 0)),
}


def found(path: Path, segments: int = SECONDS, seconds: float = 1.0) -> VideoEvents:
    """A result of one event in a video."""
    events = (FoundEvent(0.0, 1.0, "Bell", 0.9),)
    return VideoEvents(str(path), segments * seconds, seconds, events, (("Bell", 0.9),) * segments)


@pytest.mark.parametrize("name", CASES)
def test_a_copy_shows_every_picture_and_plays_the_audio(tmp_path: Path, name: str) -> None:
    suffix, film, change = CASES[name]
    path = change(compose(tmp_path / f"clip.{suffix}", film))
    write_preview(found(path), tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as copy:
        pictures = list(copy.decode(video=0))
    count = len(film.times) * (2 if name == "joined" else 1)
    assert len(pictures) == count
    assert np.diff([picture.time for picture in pictures]) == pytest.approx(1 / 25, abs=0.06)
    assert (pictures[0].width, pictures[0].height - 40) == ((96, 128) if name == "turned" else (128, 96))
    if name != "turned":
        expected = number_picture(len(film.times) - 1, 96, 128).mean(2)
        assert np.abs(pictures[-1].to_ndarray(format="rgb24")[:96].mean(2) - expected).mean() < 10
    with av.open(str(tmp_path / "copy.mp4")) as copy:
        if name in ("no audio", "audio without decoder", "raw H.264"):
            assert not copy.streams.audio
            return
        samples = np.concatenate([frame.to_ndarray()[0] for frame in copy.decode(audio=0)])
    assert len(samples) / 48000 == pytest.approx(SECONDS, abs=0.1)
    if name != "joined":
        assert find_clicks(samples, 48000) == pytest.approx(film.clicks, abs=0.06)


@pytest.mark.parametrize("seconds", [1.5, 1.2])
@pytest.mark.parametrize("ending", ["png", "mp4"])
def test_segments_that_are_no_whole_second(tmp_path: Path, ending: str, seconds: float) -> None:
    path = compose(tmp_path / "clip.mp4", FILM)
    write_preview(found(path, 2, seconds), tmp_path / f"copy.{ending}")
    assert (tmp_path / f"copy.{ending}").stat().st_size > 1000
