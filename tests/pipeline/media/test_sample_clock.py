"""Sound whose time stamps jitter runs on unbroken; where they leap or drift it keeps the picture's clock."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media import Film, compose, find_clicks, restamp_sound, steady
from tests.pipeline.media.reading import read

TONE_HZ = 440.0
TONE = Film(
    steady(5), 32, 32, codec="mjpeg", pixel_format="yuvj420p", clicks=(), tone_hz=TONE_HZ, tick=Fraction(1, 5)
)
PACKETS = 1000  # more than any file here has
BLOCK = 1024
"""Samples of one packet, of AAC and of the PCM that is composed."""

PCM = replace(TONE, sound_codec="pcm_s16le", sample_rate=16000)
"""Packets of 64 ms: Matroska's milliseconds stamp them exactly."""


def tone(samples: int = 160000) -> NDArray[np.float64]:
    """What PCM's decoder gives: the tone of `TONE` at the grid's 16 kHz, cut to 16 bits."""
    wave = 0.4 * np.sin(2 * np.pi * TONE_HZ * np.arange(samples) / 16000)
    return (wave * 32767).astype(np.int16) / 32768


def random_sum_zero() -> NDArray[np.float64]:
    shifts = np.random.default_rng(0).uniform(-MOST, MOST, PACKETS)
    return shifts - shifts.mean()


MOST = 0.022
NUMBERS = np.arange(PACKETS)
JITTERS = {
    # by how many seconds each packet is stamped later
    "random": random_sum_zero(),
    "random, of two": np.random.default_rng(1).integers(0, 2, PACKETS) * MOST,
    "alternating": np.where(NUMBERS % 2, MOST, -MOST),
    "every fourth": np.where(NUMBERS % 4 == 3, MOST, 0.0),
    "one in fifty": np.where(NUMBERS % 50 == 20, MOST, 0.0),
    "in waves": MOST * np.sin(NUMBERS / 2),
}


def in_order(shifts: NDArray[np.float64], packet_seconds: float) -> list[float]:
    """Later where a packet would be stamped before the one before it, which no container takes."""
    ordered = [0.0, 0.0]  # AAC's priming, and the packet on whose stamp the sound starts
    for shift in shifts[2:].tolist():
        ordered.append(max(shift, ordered[-1] - 0.95 * packet_seconds))
    return ordered


@dataclass(frozen=True)
class Source:
    """A file of the tone whose time stamps are right, and what it sounds like."""

    path: Path
    sample_rate: int
    samples: NDArray[np.float32]


@pytest.fixture(scope="module", params=[48000, 44100, 16000, 8000])
def sample_rate(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module", params=["mp4", "mkv"])
def source(
    request: pytest.FixtureRequest, sample_rate: int, tmp_path_factory: pytest.TempPathFactory
) -> Source:
    path = tmp_path_factory.mktemp("tone") / f"tone.{request.param}"
    compose(path, replace(TONE, sample_rate=sample_rate))
    return Source(path, sample_rate, read(path)[1])


@pytest.mark.parametrize("kind", JITTERS)
def test_jitter_leaves_a_tone_unbroken(source: Source, tmp_path: Path, kind: str) -> None:
    shifts = in_order(JITTERS[kind], BLOCK / source.sample_rate)
    path = restamp_sound(source.path, tmp_path / source.path.name, shifts.__getitem__)
    samples, info = read(path)[1:]
    np.testing.assert_array_equal(samples, source.samples)
    assert tone_error(samples) < 0.01
    assert "gaps" not in info.damage
    assert "overlaps" not in info.damage
    assert "the audio's time stamps jitter by up to" in info.damage


def tone_error(samples: NDArray[np.float32]) -> float:
    """Mean distance of samples from the tone; AAC costs 0.005, each percent of silence 0.0025."""
    reach = slice(1600, 150000)
    return float(np.abs(samples - tone())[reach].mean())


def test_jitter_of_a_whole_packet_at_8_khz_breaks_nothing(tmp_path: Path) -> None:
    source = compose(tmp_path / "tone.mp4", replace(TONE, sample_rate=8000))
    path = restamp_sound(source, tmp_path / "jitter.mp4", lambda n: 0.127 * (n % 2 == 0 and n > 0))
    samples, info = read(path)[1:]
    np.testing.assert_array_equal(samples, read(source)[1])
    assert info.damage == "the audio's time stamps jitter by up to 127 ms: not followed"


def test_steady_time_stamps_are_not_remarked_on(tmp_path: Path) -> None:
    film = Film(steady(5), 32, 32)
    for suffix in ("mp4", "mkv", "flv", "ts"):
        assert read(compose(tmp_path / f"clicks.{suffix}", film))[2].damage == ""


@pytest.mark.parametrize("jitter", [0.0, 0.02])
@pytest.mark.parametrize("lost", [1, 16])
def test_lost_packets_are_silent_and_what_follows_stays_in_place(
    tmp_path: Path, jitter: float, lost: int
) -> None:
    random = np.random.default_rng(2).uniform(-jitter, jitter, PACKETS).round(3)
    random[[0, 50 + lost]] = 0  # the stamps on which the sound starts, and starts again
    source = compose(tmp_path / "tone.mkv", PCM)
    path = restamp_sound(
        source, tmp_path / "lost.mkv", lambda n: None if 50 <= n < 50 + lost else float(random[n])
    )
    samples, info = read(path)[1:]
    expected = tone()
    expected[50 * BLOCK : (50 + lost) * BLOCK] = 0
    np.testing.assert_array_equal(samples, expected)
    gap = f"gaps in the audio: 1, {lost * 0.064:.2f} s of silence"
    assert gap in info.damage
    assert ("jitter" in info.damage) == bool(jitter)


def test_each_of_many_lost_packets_is_silent(tmp_path: Path) -> None:
    lost = {10, 12, 13, 20, 40, 41, 42, 60, 100, 120, 145}
    source = compose(tmp_path / "tone.mkv", PCM)
    samples, info = read(restamp_sound(source, tmp_path / "lost.mkv", lambda n: None if n in lost else 0.0))[
        1:
    ]
    expected = tone()
    for number in lost:
        expected[number * BLOCK : (number + 1) * BLOCK] = 0
    np.testing.assert_array_equal(samples, expected)
    assert info.damage == "gaps in the audio: 8, 0.70 s of silence"


def test_where_time_stamps_leap_back_the_earlier_sound_stays(tmp_path: Path) -> None:
    source = compose(tmp_path / "tone.mkv", PCM)
    path = restamp_sound(source, tmp_path / "back.mkv", lambda n: 0.0 if n < 50 else -0.056)  # of its 64 ms
    samples, info = read(path)[1:]
    wave, seam, back = tone(165000), 50 * BLOCK, 896
    expected = np.concatenate([wave[:seam], wave[seam + back :]])
    np.testing.assert_array_equal(samples, expected[:160000])
    assert info.damage == "overlaps in the audio: 1, 0.06 s left out"


@pytest.mark.parametrize("jitter", [0.0, 0.02])
@pytest.mark.parametrize("drift", [0.005, -0.005, 0.03, -0.03])
def test_a_slow_drift_ends_on_the_pictures_clock(tmp_path: Path, drift: float, jitter: float) -> None:
    random = np.random.default_rng(3).uniform(-jitter, jitter, PACKETS)
    clicks = (0.5, 4.5, 9.0)
    film = replace(TONE, tone_hz=0, clicks=clicks, sample_rate=16000, sound_seconds=12.0)
    source = compose(tmp_path / "clicks.mkv", film)
    packet = BLOCK / film.sample_rate
    path = restamp_sound(source, tmp_path / "drift.mkv", lambda n: n * packet * drift + float(random[n]))
    samples, info = read(path)[1:]
    bound = 0.08 if jitter else 0.016  # jitter hides what is smaller than its own range
    assert find_clicks(samples) == pytest.approx([click * (1 + drift) for click in clicks], abs=bound)
    if abs(drift) * 10 > bound:
        assert ("gaps in the audio" if drift > 0 else "overlaps in the audio") in info.damage
