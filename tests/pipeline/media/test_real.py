"""Real files, usual and odd: each one's outcome is written down, frames and sound checked against FFmpeg's.

The reference decodes every picture of the stream, picks by presentation time in a loop, scales with
swscale's packed RGB and turns with numpy: none of the code under test, no skipping, no plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from avel.grid import Grid
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from tests.pipeline.media.reading import read

pytestmark = pytest.mark.shared

GRID = Grid(size=128)
LOST, INCOMPLETE = "video packets not decoded", "pictures incomplete"


@dataclass(frozen=True)
class Staged:
    """What is known of one file: its picture stream, quarter turns, origin, sound, and damage.

    `pictures` is how many different source pictures the 160 slots show.
    """

    valid_seconds: float
    pictures: int
    sound: str = ""
    stream: int = 0
    quarter_turns: int = 0
    origin: Fraction = Fraction(0)
    damage: str = ""


ODD: "dict[str, Staged | str]" = {
    "VideoLLaMA2__sample_demo_9.mp4": Staged(9.152, 147, "aac"),
    "decord__corrupted.mp4": Staged(5.0, 49, damage=f"{LOST}: 1; {INCOMPLETE}: 1"),
    "decord__unordered.mov": Staged(0.125, 3),
    "decord__video_180.mov": Staged(0.1, 3, quarter_turns=2),
    "decord__video_90.mov": Staged(0.1, 3, quarter_turns=3),
    "mmaction2__demo.mp4": Staged(10.0, 160),
    "moviepy__-video-with-dash-.mp4": Staged(5.0, 5),
    "moviepy__chaplin.mp4": Staged(9.64, 155, "mp3float"),
    "moviepy__fire2.mp4": Staged(2.416, 25, "aac", quarter_turns=2),
    "moviepy__no_duration.webm": Staged(4.938, 74, "opus"),
    "moviepy__video_with_failing_audio.mp4": Staged(10.0, 160, "mp3float"),
    "mp4parse-rust__chunk_out_of_range.mp4": "unreadable",
    "mp4parse-rust__invalid_userdata.mp4": "truncated",
    "mp4parse-rust__no_timescale.mp4": Staged(
        6.0424, 93, origin=Fraction(166, 2500), damage=f"{LOST}: 12; {INCOMPLETE}: 28"
    ),
    "testdata__video-1s.avi": Staged(1.0, 17),
    "torchcodec__av1_video.mkv": Staged(5.0, 81),
    "torchcodec__h264_10bits.mp4": Staged(1.0, 17),
    "torchcodec__h265_video.mp4": Staged(1.0, 10),
    "torchcodec__nasa_13013.mp4": Staged(10.0, 160, "aac", stream=3),
    "zamba__04250002.MP4": Staged(10.0, 10),
}

CLIPS = {
    "AVVP-ECCV20__BjCEufrlXm4.mp4": Staged(10.0, 160, "aac"),
    "Diff-Foley__car.mp4": Staged(10.0, 160, "aac"),
    "FoleyCrafter__vggsound_1.mp4": Staged(10.0, 160, "mp3float"),
    "FoleyCrafter__vggsound_2.mp4": Staged(10.0, 160, "mp3float"),
    "SparseSync__video_3qesirWAGt4_20000_30000.mp4": Staged(10.0, 160, "aac"),
    "SparseSync__video_ZYc410CE4Rg_0_10000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__dog_video_02754.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__gun_video_00819.mp4": Staged(8.0, 129, "aac"),
    "SpecVQGAN__video_-1pRmoJIGQc_10000_20000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_-Qowmc0P9ic_34000_44000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_0nib7bMm8BA_15000_25000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_1aDnyPubxdY_118000_128000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_3HgbEKrbA9s_54000_64000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_53UdZyM9MyE_252000_262000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_6zlMP_kQ_-w_30000_40000.mp4": Staged(10.0, 160, "aac"),
    "SpecVQGAN__video_D1NO38P8vqI_284000_294000.mp4": Staged(10.0, 160, "aac"),
    "decord__flipping_a_pancake.mkv": Staged(10.0, 160, "opus"),
}


def test_no_file_is_left_out(data: Path) -> None:
    for folder, known in (("odd", ODD), ("clips", CLIPS)):
        there = {path.name for path in (data / folder).iterdir()} - {"manifest.csv"}
        assert there == set(known)


@pytest.mark.parametrize("name", ODD)
def test_odd_files_come_out_as_written_down(data: Path, name: str) -> None:
    expected = ODD[name]
    if isinstance(expected, str):
        with pytest.raises(ClipRefused) as refusal:
            read(data / "odd" / name)
        assert refusal.value.reason == expected
    else:
        check(data / "odd" / name, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_clips_equal_full_decoding(data: Path, name: str) -> None:
    check(data / "clips" / name, CLIPS[name])


@pytest.mark.slow
@pytest.mark.parametrize("for_jpeg", [False, True], ids=["RGB", "on the way to JPEG"])
def test_leaving_pictures_out_changes_no_bit(
    data: Path, monkeypatch: pytest.MonkeyPatch, for_jpeg: bool
) -> None:
    files = [data / "clips" / name for name in CLIPS]
    files += [data / "odd" / name for name, expected in ODD.items() if isinstance(expected, Staged)]
    planned = [decoded(path, for_jpeg) for path in files]
    monkeypatch.setattr("avel.pipeline.media.video.SKIPPING", frozenset())
    left_out, colours = 0, set()
    for path, (frames, colour, count) in zip(files, planned, strict=True):
        everything, same_colour, full_count = decoded(path, for_jpeg)
        assert np.array_equal(frames, everything), path.name
        assert colour == same_colour
        left_out += full_count - count
        colours.add(colour)
    assert left_out > 50  # or nothing was tried
    assert colours == ({"rgb", "i420"} if for_jpeg else {"rgb"})


def decoded(path: Path, for_jpeg: bool) -> "tuple[np.ndarray, str, int]":
    """The first two seconds of a file, what its channels are, and how many pictures were decoded for it."""
    with open_media(path, Grid(segments=2, size=64), for_jpeg=for_jpeg) as media:
        return np.concatenate(list(media.frames(1))), media.colours, media._video.decoded


def check(path: Path, expected: Staged) -> None:
    """The file reads as written down, and shows and sounds as the reference says."""
    frames, samples, info = read(path, GRID)
    assert info.valid_seconds == pytest.approx(expected.valid_seconds, abs=0.001)
    assert info.audio_codec == expected.sound
    assert info.damage == expected.damage
    shown, numbers = reference_frames(path, expected)
    assert len(set(numbers)) == expected.pictures
    assert np.abs(frames.astype(int) - shown).max() <= 1  # planar and packed RGB round apart by one
    sound = reference_samples(path) if expected.sound else np.zeros(0)
    whole = min(len(sound), len(samples))
    assert np.abs(samples[:whole] - sound[:whole]).max(initial=0) <= 1 / 32768
    assert not samples[whole:].any()


def reference_frames(path: Path, expected: Staged) -> "tuple[np.ndarray, list[int]]":
    """(160, S, S, 3) and the number of the picture in each slot, by decoding all and looping over times."""
    kept: dict[int, np.ndarray] = {}
    times: list[Fraction] = []
    scaler = VideoReformatter()
    slots = [Fraction(slot, 16) + expected.origin for slot in range(160)]
    pictures = list(presented(path, expected.stream))
    latest = Fraction(-1)
    for time, _ in pictures:
        times.append(time if time > latest else Fraction(1000))  # out of order: lost, as in a player
        latest = max(time, latest)
    numbers = [max([n for n, time in enumerate(times) if time <= slot], default=0) for slot in slots]
    for number, (_, picture) in enumerate(pictures):
        if number in numbers:
            scaled = scaler.reformat(
                picture,
                width=GRID.size,
                height=GRID.size,
                format="rgb24",
                interpolation=Interpolation.AREA | Interpolation.FULL_CHR_H_INT,
                threads=1,
            )
            kept[number] = np.rot90(scaled.to_ndarray(), expected.quarter_turns)
    return np.stack([kept[number] for number in numbers]).astype(int), numbers


def presented(path: Path, stream: int) -> "Iterator[tuple[Fraction, av.VideoFrame]]":
    """Every picture of the grid's span with its presentation time; what does not decode is left out."""
    with av.open(str(path)) as container:
        container.streams[stream].thread_type = "NONE"  # how a broken picture is patched depends on it
        for packet in container.demux(container.streams[stream]):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                pts = frame.pts if frame.pts is not None else frame.dts
                if pts * packet.time_base > 11:
                    return
                yield pts * packet.time_base, frame


def reference_samples(path: Path) -> np.ndarray:
    """The sound as FFmpeg resamples it to 16-bit mono, each stretch without a gap laid at its own time."""
    sound = np.zeros(16000 * 20)
    end = expected = 0
    stretch: list[av.AudioFrame] = []
    with av.open(str(path)) as container:
        stream = container.streams.best("audio", related=container.streams.best("video"))
        for frame in [*container.decode(stream), None]:
            if stretch and (frame is None or abs(frame.pts - expected) * stream.time_base > 0.015):
                resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
                pieces = [piece for each in [*stretch, None] for piece in resampler.resample(each)]
                wave = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
                start = round(stretch[0].pts * stream.time_base * 16000)
                sound[start : start + len(wave)] = wave
                end, stretch = start + len(wave), []
            if frame is not None:
                stretch.append(frame)
                expected = frame.pts + int(Fraction(frame.samples, frame.sample_rate) / stream.time_base)
    return sound[:end] / 32768
