"""What is read where a file leaves a choice: which stream, how long it is, whether it is a video at all."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avel.pipeline.media.refusal import ClipRefused
from tests.media import Film, ambisonic, compose, find_clicks, read_number, spoil_sound, steady
from tests.pipeline.media.reading import on_screen, read

PLAIN = Film(
    steady(25, 6), 64, 64, codec="mjpeg", pixel_format="yuvj420p", clicks=(1.0, 5.0), sound_seconds=6.0
)
FILM = Film(steady(25, 6), 64, 64, clicks=(1.0, 5.0), sound_seconds=6.0)


# Which audio is read


def unknown(path: Path) -> Path:
    """Gives the first AAC track of an MP4 a codec that no decoder knows."""
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"apac", 1).replace(b"esds", b"none", 1))
    return path


def crowd(path: Path) -> Path:
    """A Matroska file whose audio has 60 channels, which FFmpeg does not mix."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=25)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuvj420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="60 channels")
        for _ in range(150):
            container.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
        for number in range(6):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 60 * 8000), np.int16), "s16", "60 channels")
            frame.sample_rate, frame.pts = 8000, 8000 * number
            container.mux(sound.encode(frame))
        container.mux([*picture.encode(None), *sound.encode(None)])
    return path


def tracks(target: Path, *sources: Path) -> Path:
    """Copies the picture of the first source, and the audio of all, into one file."""
    with ExitStack() as stack:
        writer = stack.enter_context(av.open(str(target), "w"))
        packets = []
        for number, source in enumerate(sources):
            reader = stack.enter_context(av.open(str(source)))
            wanted = (
                reader.streams.audio[:1] if number else [reader.streams.video[0], reader.streams.audio[0]]
            )
            copies = {stream.index: writer.add_stream_from_template(stream) for stream in wanted}
            for packet in reader.demux(*wanted):
                if packet.dts is not None:
                    packet.stream = copies[packet.stream_index]
                    packets.append(packet)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            writer.mux(packet)
    return target


def _silent_and_loud(folder: Path, suffix: str, film: Film) -> tuple[Path, Path]:
    return (
        compose(folder / f"silent.{suffix}", replace(film, clicks=())),
        compose(folder / f"loud.{suffix}", film),
    )


def _unknown_first(folder: Path) -> Path:
    return unknown(tracks(folder / "two.mp4", *_silent_and_loud(folder, "mp4", FILM)))


def _spoilt_first(folder: Path) -> Path:
    silent, loud = _silent_and_loud(folder, "mp4", FILM)
    return tracks(folder / "two.mp4", spoil_sound(silent, folder / "spoilt.mp4"), loud)


def _unmixed_first(folder: Path) -> Path:
    silent = replace(PLAIN, clicks=(), sound_codec="libopus", gains=(0.0,) * 4, sample_rate=48000)
    silent = replace(silent, sound_options={"mapping_family": "255"})
    return tracks(
        folder / "two.mkv",
        ambisonic(compose(folder / "silent.mkv", silent)),
        compose(folder / "loud.mkv", PLAIN),
    )


def _crowd_first(folder: Path) -> Path:
    return tracks(folder / "two.mkv", crowd(folder / "crowd.mkv"), compose(folder / "loud.mkv", PLAIN))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_unknown_first, "no decoder for the audio (apac)"),
        (_spoilt_first, "the first audio packets cannot be decoded (aac)"),
        (_unmixed_first, "the first audio packets cannot be decoded (opus)"),
        (_crowd_first, ""),
    ],
)
def test_the_audio_that_can_be_decoded_is_read(
    tmp_path: Path, make: "Callable[[Path], Path]", said: str
) -> None:
    samples, info = read(make(tmp_path))[1:]
    assert find_clicks(samples) == pytest.approx([1.0, 5.0], abs=0.03)
    assert said in info.damage


def test_of_two_that_can_be_decoded_the_best_is_read_without_a_word(tmp_path: Path) -> None:
    silent, loud = _silent_and_loud(tmp_path, "mp4", FILM)
    samples, info = read(tracks(tmp_path / "two.mp4", loud, silent))[1:]
    assert find_clicks(samples) == pytest.approx([1.0, 5.0], abs=0.03)
    assert info.damage == ""


def test_audio_that_no_decoder_knows_is_named_or_refused(tmp_path: Path) -> None:
    path = unknown(compose(tmp_path / "clip.mp4", FILM))
    samples, info = read(path)[1:]
    assert not samples.any()
    assert info.damage == "no decoder for the audio (apac)"
    with pytest.raises(ClipRefused, match=r"no decoder for the audio \(apac\)") as refusal:
        read(path, missing_audio="fail")
    assert refusal.value.reason == "unsupported"


def test_audio_of_too_many_channels_is_named_or_refused(tmp_path: Path) -> None:
    path = crowd(tmp_path / "clip.mkv")
    assert "blocks of audio not mixed to mono" in read(path)[2].damage
    with pytest.raises(ClipRefused, match="not mixed to mono"):
        read(path, missing_audio="fail")


# What has no time stamps


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "h264"), ("libx265", "hevc"), ("mpeg2video", "m2v"), ("mpeg4", "m4v")]
)
def test_raw_video_takes_the_usual_step(tmp_path: Path, codec: str, suffix: str) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    film = Film(steady(25, 6), 64, 64, codec=codec, clicks=None, options=quiet, tick=Fraction(1, 25))
    path = compose(tmp_path / f"raw.{suffix}", film).rename(tmp_path / "raw.mp4")
    frames, _, info = read(path)
    assert [read_number(frame) for frame in frames] == on_screen(film.times)
    assert info.valid_seconds == pytest.approx(6.0, abs=0.05)


def test_raw_video_is_read_as_far_as_the_grid_goes(tmp_path: Path) -> None:
    film = Film(steady(25, 14), 64, 64, clicks=None, tick=Fraction(1, 25))
    frames, _, info = read(compose(tmp_path / "raw.h264", film))
    assert [read_number(frame) for frame in frames] == on_screen(film.times)
    assert (info.valid_seconds, info.damage) == (10.0, "")


# What is no video


def _animation(path: Path) -> Path:
    pictures = [Image.fromarray(np.full((64, 64, 3), 80 * k, np.uint8)) for k in range(3)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=500)
    return path


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp", "gif", "ppm", "avif"])
def test_a_single_picture_is_no_video_whatever_its_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clip.mp4"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path, format=kind)
    with pytest.raises(ClipRefused, match="still picture") as refusal:
        read(path)
    assert refusal.value.reason == "no-video"


@pytest.mark.parametrize("kind", ["gif", "png"])
def test_an_animation_is_a_video(tmp_path: Path, kind: str) -> None:
    info = read(_animation(tmp_path / f"clip.{kind}"))[2]
    assert info.valid_seconds == pytest.approx(1.5, abs=0.05)


def test_a_video_of_one_picture_is_a_video(tmp_path: Path) -> None:
    assert read(compose(tmp_path / "clip.mp4", replace(FILM, times=steady(25, 1)[:1])))[2].damage == ""


# How long it is

GAP = [time for time in steady(30, 6) if not 2 <= time < 5.5]
LATE = [*steady(30, 4), Fraction(6) - Fraction(1, 30)]


@pytest.mark.parametrize("times", [GAP, LATE], ids=["gap", "late picture"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_b_pictures_of_a_variable_rate_end_where_the_last_is_presented(
    tmp_path: Path, suffix: str, times: list[Fraction]
) -> None:
    film = Film(times, 64, 64, clicks=None, options={"bf": "3", "b-pyramid": "2"})
    assert read(compose(tmp_path / f"clip.{suffix}", film))[2].valid_seconds == pytest.approx(6.0, abs=0.1)


def packets_from(path: Path, seconds: float, until: float = 100.0) -> tuple[int, int]:
    """The range of the file in which the packets between two times lie."""
    with av.open(str(path)) as container:
        places = [
            (packet.pos, packet.pos + packet.size)
            for packet in container.demux()
            if packet.dts is not None and packet.pos and seconds <= packet.dts * packet.time_base < until
        ]
    return min(begin for begin, _ in places), max(end for _, end in places)


def overwrite_with_zeros(path: Path, begin: int, end: int) -> Path:
    """Leaves a file as an interrupted download leaves it, whose size was reserved at its beginning."""
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    return path


TAILS: "dict[str, Film]" = {
    "mp4": FILM,
    "mkv": FILM,
    "ts": FILM,
    "mov": replace(FILM, codec="mjpeg", pixel_format="yuvj420p", sound_codec="pcm_s16le"),
}


@pytest.mark.parametrize("suffix", TAILS)
def test_a_tail_of_zeros_is_not_valid(tmp_path: Path, suffix: str) -> None:
    path = compose(tmp_path / f"clip.{suffix}", TAILS[suffix])
    overwrite_with_zeros(path, *packets_from(path, 3.3))
    info = read(path)[2]
    assert info.valid_seconds == pytest.approx(3.3, abs=0.2)
    assert "the video ends at" in info.damage or suffix == "ts"  # which states no end


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
@pytest.mark.parametrize("pictures", [1, 10, 75])
def test_video_that_is_shorter_than_the_audio_is_not_damaged(
    tmp_path: Path, suffix: str, pictures: int
) -> None:
    codec = "flv" if suffix == "flv" else "libx264"
    film = Film(steady(25)[:pictures], 64, 64, codec=codec, clicks=(1.0,), tick=Fraction(1, 25))
    frames, _, info = read(compose(tmp_path / f"clip.{suffix}", film))
    assert read_number(frames[-1]) == pictures - 1
    assert (info.damage, info.valid_seconds) == ("", 10)


def test_silence_at_the_end_is_valid(tmp_path: Path) -> None:
    film = replace(TAILS["mov"], sound_seconds=6.0, clicks=(1.0,))
    assert read(compose(tmp_path / "clip.mov", film))[2].valid_seconds == pytest.approx(6.0, abs=0.05)


# What is not decoded


def test_pictures_that_came_and_were_not_decoded_are_named(tmp_path: Path) -> None:
    path = compose(tmp_path / "clip.mp4", FILM)
    overwrite_with_zeros(path, *packets_from(path, 2.0, 5.0))
    damage = read(path)[2].damage
    assert "video packets not decoded: 75" in damage
    assert re.search(r"none of \d+ pictures decoded between 2\.\d\d s and 5\.", damage)


def test_pictures_without_their_key_picture_are_named(tmp_path: Path) -> None:
    hevc = {"x265-params": "log-level=none:keyint=50:min-keyint=50"}
    source = compose(tmp_path / "whole.mp4", replace(FILM, codec="libx265", options=hevc))
    target = tmp_path / "clip.mp4"
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None or (packet.stream.type, packet.pts, packet.is_keyframe) == (
                "video",
                2 / packet.time_base,
                True,
            ):
                continue
            packet.stream = streams[packet.stream_index]
            writer.mux(packet)
    assert re.fullmatch(r"none of \d+ pictures decoded between 1\.\d\d s and 4\.00 s", read(target)[2].damage)
