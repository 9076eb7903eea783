"""Each sample is where its presentation time says, at VGGish's loudness, on the picture's clock."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avel.grid import Grid
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from tests.media import Film, ambisonic, compose, find_clicks, steady
from tests.pipeline.media.reading import read

CLICKS = (0.5, 1.25, 4.0, 9.5)
LATER = Fraction(1, 2)
PICTURE = Film(steady(5), 32, 32)
AAC_PRIMING = 1024 / 44100
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}

CASES: dict[str, tuple[str, Film, float]] = {
    # name: suffix, film, and by how much the container presents the sound later than composed
    "AAC": ("mp4", PICTURE, 0.0),
    "AAC, 48 kHz": ("mp4", replace(PICTURE, sample_rate=48000), 0.0),
    "AAC, 8 kHz": ("mp4", replace(PICTURE, sample_rate=8000), 0.0),
    "late sound": ("mp4", replace(PICTURE, sound_start=LATER), 0.0),
    "late sound, fragments": (
        "mp4",
        replace(PICTURE, sound_start=LATER, form=FRAGMENTS, options={"bf": "0"}),
        0.0,
    ),
    "late picture": ("mp4", replace(PICTURE, times=steady(5, start=LATER)), 0.0),
    "MP3": ("mp4", replace(PICTURE, sound_codec="mp3"), 0.0),
    "Opus": ("mkv", replace(PICTURE, sound_codec="libopus", sample_rate=48000), 0.0),
    "PCM": ("mkv", replace(PICTURE, sound_codec="pcm_s16le"), 0.0),
    "PCM, late": ("mkv", replace(PICTURE, sound_codec="pcm_s16le", sound_start=LATER), 0.0),
    "FLAC": ("mkv", replace(PICTURE, sound_codec="flac", sample_rate=16000), 0.0),
    "MPEG-TS": ("ts", PICTURE, AAC_PRIMING),
    "FLV": ("flv", PICTURE, AAC_PRIMING),
    "AVI has no word for priming": ("avi", replace(PICTURE, tick=Fraction(1, 5)), AAC_PRIMING),
}


@pytest.mark.parametrize("name", CASES)
def test_clicks_are_where_they_were_composed(tmp_path: Path, name: str) -> None:
    suffix, film, later = CASES[name]
    samples = read(compose(tmp_path / f"clicks.{suffix}", film))[1]
    assert samples.dtype == np.float32
    assert len(samples) == 160000
    assert find_clicks(samples) == pytest.approx([click + later for click in CLICKS], abs=0.001)


def test_sound_and_picture_share_the_clock_of_a_file_that_starts_anywhere(tmp_path: Path) -> None:
    film = Film(steady(25, start=Fraction(100)), sound_codec="pcm_s16le", sound_start=Fraction(201, 2))
    film = replace(film, clicks=[100 + click for click in (1.0, 4.0)])
    samples, info = read(compose(tmp_path / "far.mkv", film))[1:]
    assert info.audio_start_seconds == 0.5
    assert find_clicks(samples) == pytest.approx([1.0, 4.0], abs=0.001)
    assert not samples[:7990].any()


@pytest.mark.parametrize(
    ("gains", "loudness"), [((0.8,), 0.8), ((0.8, 0.8), 0.8), ((0.8, 0.0), 0.4), ((0.0, -0.8), 0.4)]
)
def test_stereo_is_mixed_as_half_the_sum(tmp_path: Path, gains: Sequence[float], loudness: float) -> None:
    film = replace(PICTURE, sound_codec="pcm_s16le", gains=tuple(gains), clicks=(1.0,), sample_rate=16000)
    samples = read(compose(tmp_path / "stereo.mkv", film))[1]
    assert np.abs(samples).max() == pytest.approx(loudness, abs=0.002)


def test_sixteen_bit_sound_at_the_grids_rate_comes_through_untouched(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).integers(-32768, 32767, 16000 * 3, dtype=np.int16)
    path = tmp_path / "noise.mkv"
    compose_noise(path, wave, start=Fraction(0))
    samples = read(path, Grid(segments=4, size=16))[1]
    np.testing.assert_array_equal(samples[: len(wave)], wave.astype(np.float64) / 32768)
    assert not samples[len(wave) :].any()


def test_a_gap_in_the_sound_is_silence_and_the_rest_stays_in_place(tmp_path: Path) -> None:
    wave = np.full(16000 * 3, 8000, np.int16)
    path = tmp_path / "gap.mkv"
    compose_noise(path, wave, start=Fraction(0), missing=range(16000, 16320))
    samples = read(path, Grid(segments=3, size=16))[1]
    np.testing.assert_array_equal(np.flatnonzero(samples == 0), np.arange(16000, 16320))


def test_missing_sound_is_silence_or_a_refusal(tmp_path: Path) -> None:
    path = compose(tmp_path / "silent.mp4", replace(PICTURE, clicks=None))
    samples, info = read(path)[1:]
    assert samples.shape == (160000,)
    assert not samples.any()
    assert info.audio_codec == ""
    with pytest.raises(ClipRefused) as refusal, open_media(path, Grid(), missing_audio="fail"):
        pass
    assert refusal.value.reason == "no-audio"


def test_sound_that_cannot_be_mixed_to_mono_is_silence_or_a_refusal(tmp_path: Path) -> None:
    film = replace(PICTURE, sound_codec="libopus", sample_rate=48000, gains=(0.8,) * 4)
    path = compose(tmp_path / "clip.mkv", replace(film, sound_options={"mapping_family": "255"}))
    samples, info = read(ambisonic(path))[1:]
    assert not samples.any()
    assert "not mixed to mono" in info.damage
    with pytest.raises(ClipRefused, match=r"no-audio: .*not mixed to mono"):
        read(path, missing_audio="fail")


def test_sound_that_begins_after_the_grid_is_missing(tmp_path: Path) -> None:
    path = compose(tmp_path / "late.mkv", replace(PICTURE, sound_start=Fraction(12), clicks=(12.5,)))
    with open_media(path, Grid(size=16)) as media:
        assert not any(chunk.any() for chunk in media.samples())
        assert not media.has_audio
        assert media.info.damage == "the audio starts at 12.0 s"
    with pytest.raises(ClipRefused, match=r"no-audio: the audio starts at 12\.0 s"):
        read(path, missing_audio="fail")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = compose(tmp_path / "sound.mp4", Film())
    with pytest.raises(ClipRefused) as refusal:
        read(path)
    assert refusal.value.reason == "no-video"


def compose_noise(path: Path, wave: np.ndarray, start: Fraction, missing: range = range(0)) -> None:
    """Pictures and 16 kHz PCM in blocks of 320 samples, `missing` left out by a jump of the time stamps."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=5)
        picture.width = picture.height = 16
        picture.pix_fmt = "yuvj420p"
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for number in range(len(wave) * 5 // 16000):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(picture.encode(frame))
        for first in range(0, len(wave), 320):
            if first in missing:
                continue
            block = av.AudioFrame.from_ndarray(wave[None, first : first + 320], format="s16", layout="mono")
            block.sample_rate, block.time_base = 16000, Fraction(1, 16000)
            block.pts = int(start * 16000) + first
            container.mux(sound.encode(block))
        container.mux(picture.encode(None))
