"""The demo's dataset: what the annotations claim is what a decoder sees and hears."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avel.errors import ConfigError, DatasetError, UnknownNameError
from avel.recipes.composing.compose import CLASSES, HEADER, clip_path, compose, film
from avel.recipes.composing.film import cast, choose_camera, film_frames
from avel.recipes.composing.mix import film_sound
from avel.recipes.composing.script import BACKGROUNDS, Script, write_scripts

CLIPS, SEED, SECONDS = 18, 5, 4


@dataclass(frozen=True)
class Made:
    """A composed folder and the scripts it came from."""

    folder: Path
    scripts: tuple[Script, ...]


@dataclass(frozen=True)
class Decoded:
    """A clip as a player shows it: frames (n, H, W, 3), their times, samples (channels, n)."""

    frames: NDArray[np.uint8]
    times: list[Fraction]
    sound: NDArray[np.float32]
    hz: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = compose(tmp_path_factory.mktemp("demo") / "set", clips=CLIPS, seed=SEED, seconds=SECONDS)
    return Made(folder, write_scripts(CLIPS, SEED, CLASSES, SECONDS))


def decode(path: Path) -> Decoded:
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    with av.open(str(path)) as container:
        hz = container.streams.audio[0].rate
        pieces = list(container.decode(audio=0))
    assert pieces[0].pts == 0
    frames = np.stack([picture.to_ndarray(format="rgb24") for picture in pictures])
    times = [picture.pts * picture.time_base for picture in pictures]
    return Decoded(frames, times, np.concatenate([piece.to_ndarray() for piece in pieces], axis=1), hz)


@pytest.mark.parametrize("take", range(0, CLIPS, 3))
def test_every_object_is_on_screen_in_its_seconds_and_in_no_other(made: Made, take: int) -> None:
    script = made.scripts[take]
    clip = decode(clip_path(made.folder, script))
    rng = np.random.default_rng([SEED, take])
    camera = choose_camera(rng, take)
    actors = cast(rng, script, camera)
    film_sound(rng, camera, actors, script.heard)
    without_objects = film_frames(rng, camera, {}, SECONDS)
    for picture, empty, time in zip(clip.frames, without_objects, clip.times, strict=True):
        if min(time % 1, 1 - time % 1) < 0.06 or time >= SECONDS:
            continue  # objects fade in and out around the second
        changed = np.mean(np.abs(picture.astype(int) - empty).max(axis=-1) > 48)
        if script.seen[int(time)]:
            assert changed > 0.01, f"nothing to see at {float(time):.2f} s"
        else:
            assert changed < 0.001, f"something to see at {float(time):.2f} s"


@pytest.mark.parametrize("take", range(CLIPS))
def test_every_sound_is_heard_in_its_seconds_and_in_no_other(made: Made, take: int) -> None:
    script = made.scripts[take]
    clip = decode(clip_path(made.folder, script))
    rms = [clip.sound[:, t * clip.hz : (t + 1) * clip.hz] for t in range(SECONDS)]
    rms = [float(np.sqrt(np.mean(np.square(second[:, clip.hz // 20 : -clip.hz // 20])))) for second in rms]
    loud = [level for level, names in zip(rms, script.heard, strict=True) if names]
    quiet = [level for level, names in zip(rms, script.heard, strict=True) if not names]
    assert min(loud) > 10 ** (-32 / 20)
    assert max(quiet, default=0) < 10 ** (-40 / 20)


@pytest.mark.parametrize(
    ("name", "low_hz", "high_hz"),
    [("Bird song", 2000, 7000), ("Basketball, bouncing", 0, 900), ("Ambulance (siren)", 400, 5000)],
)
def test_a_class_sounds_in_its_own_band(made: Made, name: str, low_hz: float, high_hz: float) -> None:
    script = next(script for script in made.scripts if script.categories == (name,))
    clip = decode(clip_path(made.folder, script))
    event = clip.sound[0, script.start_seconds * clip.hz : script.end_seconds * clip.hz]
    power = np.square(np.abs(np.fft.rfft(event)))
    hz = np.fft.rfftfreq(len(event), 1 / clip.hz)
    assert power[(hz >= low_hz) & (hz <= high_hz)].sum() > 0.9 * power.sum()


@pytest.mark.parametrize("take", [0, 3, 6])
def test_sound_and_picture_start_together_at_zero(made: Made, take: int) -> None:
    clip = decode(clip_path(made.folder, made.scripts[take]))
    rng = np.random.default_rng([SEED, take])
    camera = choose_camera(rng, take)
    written = film_sound(rng, camera, cast(rng, made.scripts[take], camera), made.scripts[take].heard)
    length = SECONDS * clip.hz
    product = np.fft.rfft(clip.sound[0, :length]) * np.conj(np.fft.rfft(written[0, :length]))
    assert int(np.argmax(np.fft.irfft(product, n=length))) == 0
    assert clip.times == [number / camera.fps for number in range(len(clip.times))]
    assert len(clip.times) / camera.fps >= SECONDS


def test_cameras_differ(made: Made) -> None:
    cameras = [choose_camera(np.random.default_rng([SEED, take]), take) for take in range(CLIPS)]
    assert {camera.fps for camera in cameras} == {Fraction(25), Fraction(30000, 1001), Fraction(30)}
    assert {(camera.hz, camera.channels) for camera in cameras} == {
        (hz, channels) for hz in (16000, 44100, 48000) for channels in (1, 2)
    }
    assert len({(camera.width_px, camera.height_px) for camera in cameras}) >= 3


def test_annotations_follow_the_layout_of_ave(made: Made) -> None:
    lines = (made.folder / "Annotations.txt").read_text().splitlines()
    assert lines[0] == HEADER
    rows = [line.split("&") for line in lines[1:]]
    assert len(rows) == CLIPS + 1
    assert {row[0] for row in rows} == set(CLASSES)
    for _, video, _, start, end in rows:
        assert (made.folder / "AVE" / f"{video}.mp4").is_file()
        assert 0 <= int(start) < int(end) <= SECONDS
    ids = [row[1] for row in rows]
    assert {"-", "_"} < {video[0] for video in ids}
    twice = [row for row in rows if ids.count(row[1]) == 2]
    assert len(twice) == 2
    assert twice[0][0] != twice[1][0]
    assert twice[0][3:] == twice[1][3:]


def test_splits_share_no_video_and_hold_every_class(made: Made) -> None:
    splits = [(made.folder / f"{name}Set.txt").read_text().splitlines() for name in ("train", "val", "test")]
    videos = [{row.split("&")[1] for row in rows} for rows in splits]
    assert sum(map(len, videos)) == len(set.union(*videos)) == CLIPS
    assert [{row.split("&")[0] for row in rows} for rows in splits] == [set(CLASSES)] * 3
    annotations = (made.folder / "Annotations.txt").read_text().splitlines()[1:]
    assert sorted(row for rows in splits for row in rows) == sorted(annotations)


def test_default_splits_are_about_60_20_20() -> None:
    splits = [script.split for script in write_scripts(48, 0, CLASSES, 10)]
    assert [splits.count(name) for name in ("train", "val", "test")] == [28, 10, 10]


def test_events_are_seen_and_heard_and_backgrounds_are_of_every_kind() -> None:
    kinds = set()
    for script in write_scripts(48, 0, CLASSES, 10):
        for second, (seen, heard) in enumerate(zip(script.seen, script.heard, strict=True)):
            is_event = seen == heard == script.categories
            assert is_event == (script.start_seconds <= second < script.end_seconds)
            if not is_event:
                kinds.add((seen == script.categories, bool(seen), heard == script.categories, bool(heard)))
    assert len(kinds) == len(BACKGROUNDS) == 5


def test_the_seed_decides_every_byte(made: Made, tmp_path: Path) -> None:
    film(tmp_path / "again.mp4", made.scripts[1], SEED, 1)
    again = (tmp_path / "again.mp4").read_bytes()
    assert again == clip_path(made.folder, made.scripts[1]).read_bytes()
    film(tmp_path / "other.mp4", made.scripts[1], SEED + 1, 1)
    assert (tmp_path / "other.mp4").read_bytes() != again
    assert write_scripts(CLIPS, SEED + 1, CLASSES, SECONDS) != made.scripts


def test_composing_again_keeps_whole_clips_and_makes_missing_ones(made: Made) -> None:
    missing, kept = (clip_path(made.folder, script) for script in made.scripts[:2])
    before, written = missing.read_bytes(), kept.stat().st_mtime_ns
    missing.unlink()
    compose(made.folder, clips=CLIPS, seed=SEED, seconds=SECONDS)
    assert missing.read_bytes() == before
    assert kept.stat().st_mtime_ns == written


def test_a_folder_with_other_clips_is_left_alone(made: Made) -> None:
    with pytest.raises(DatasetError, match="other arguments"):
        compose(made.folder, clips=CLIPS, seed=SEED + 1, seconds=SECONDS)


@pytest.mark.parametrize("name", ["Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt"])
def test_annotations_of_another_origin_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Bark&-abc&good&0&10\n")
    with pytest.raises(DatasetError, match=f"{name}: is of other arguments or another origin"):
        compose(tmp_path, clips=CLIPS, seed=SEED, seconds=SECONDS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_arguments_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clips=17"):
        compose(tmp_path, clips=17)
    with pytest.raises(ConfigError, match="seconds=2"):
        compose(tmp_path, seconds=2)
    with pytest.raises(ConfigError, match="at least 3"):
        compose(tmp_path, classes=CLASSES[:2])
    with pytest.raises(UnknownNameError, match="Helicopter"):
        compose(tmp_path, classes=("Helikopter", *CLASSES))
    assert not list(tmp_path.iterdir())
