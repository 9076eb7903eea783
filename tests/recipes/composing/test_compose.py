"""The world of the demo: what the annotations claim is what a decoder sees and hears."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avel.errors import ConfigError, DatasetError, UnknownNameError
from avel.recipes.composing.compose import CLASSES, HEADER, clip_path, compose, record
from avel.recipes.composing.film import FILM_SAMPLE_RATE, FPS, make_film
from avel.recipes.composing.script import Script, write_scripts
from avel.recipes.composing.sounds import Cycle

CLIPS, SEED, SECONDS = 18, 5, 4


@dataclass(frozen=True)
class Made:
    """A composed folder and the scripts it came from."""

    folder: Path
    scripts: tuple[Script, ...]


@dataclass(frozen=True)
class Decoded:
    """A clip as a player shows it: frames (n, H, W, 3) at FPS, samples (n,) at FILM_SAMPLE_RATE."""

    frames: NDArray[np.uint8]
    sound: NDArray[np.float32]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = compose(tmp_path_factory.mktemp("world") / "set", clips=CLIPS, seed=SEED, seconds=SECONDS)
    return Made(folder, write_scripts(CLIPS, SEED, CLASSES, SECONDS))


def decode(path: Path) -> Decoded:
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    with av.open(str(path)) as container:
        pieces = list(container.decode(audio=0))
    assert pieces[0].pts == 0
    assert {piece.sample_rate for piece in pieces} == {FILM_SAMPLE_RATE}
    assert [picture.pts * picture.time_base for picture in pictures] == [
        n / FPS for n in range(len(pictures))
    ]
    frames = np.stack([picture.to_ndarray(format="rgb24") for picture in pictures])
    return Decoded(frames, np.concatenate([piece.to_ndarray() for piece in pieces], axis=1)[0])


@pytest.mark.parametrize("take", range(CLIPS))
def test_every_object_is_on_screen_where_it_should_be_and_in_no_other_second(made: Made, take: int) -> None:
    script, film = made.scripts[take], make_film(made.scripts[take], SEED, take)
    frames = decode(clip_path(made.folder, script)).frames.astype(int)
    assert len(frames) == SECONDS * FPS
    for number, frame in enumerate(frames):
        seconds = number / float(FPS)
        changed = np.abs(frame - np.asarray(film.place).astype(int)).max(-1) > 40
        names = script.video[int(seconds)]
        if not names:
            assert changed.mean() < 0.004, f"something to see at {seconds:.2f} s"
            continue
        assert changed.mean() > 0.03, f"nothing to see at {seconds:.2f} s"
        actor = film.actors[names[0]]
        (left, top), picture = actor.corners[actor.pose(seconds)], actor.poses[actor.pose(seconds)]
        inside = changed[max(top, 0) : top + picture.height, max(left, 0) : left + picture.width]
        assert inside.sum() > 0.97 * changed.sum(), f"{names[0]} is elsewhere at {seconds:.2f} s"
        painted = np.abs(frame[changed] - actor.colour).max(-1) < 40
        assert painted.mean() > 0.2, f"{names[0]} has another colour at {seconds:.2f} s"


def test_the_train_rolls_to_the_right_and_back_once_a_cycle(made: Made) -> None:
    script = next(script for script in made.scripts if script.category == "Train horn")
    film = make_film(script, SEED, made.scripts.index(script))
    actor = film.actors["Train horn"]
    lefts = [left for left, _ in actor.corners]
    assert lefts[0] == max(lefts)
    assert lefts[len(lefts) // 2] == min(lefts)
    assert lefts[0] - lefts[len(lefts) // 2] == pytest.approx(0.35 * actor.poses[0].height, abs=1)
    assert len({top for _, top in actor.corners}) == 1
    for seconds in (0.0, 0.4, 3.9):
        cycles = actor.cycle.start + actor.cycle.cycles_per_second * seconds
        assert actor.pose(seconds) == int((cycles - int(cycles)) * len(lefts))


def test_beats_are_counted_from_phase_zero() -> None:
    cycle = Cycle(cycles_per_second=2.0, start=0.5)  # at phase 0 at 0.25 s, 0.75 s, ...
    assert cycle.since(np.array([0.25, 0.3, 0.7]), 1) == pytest.approx([0, 0.05, 0.45], abs=1e-6)
    assert cycle.since(np.array([0.25, 0.3, 0.51]), 2) == pytest.approx([0, 0.05, 0.01], abs=1e-6)


@pytest.mark.parametrize("take", range(CLIPS))
def test_every_sound_is_heard_in_its_seconds_and_in_no_other(made: Made, take: int) -> None:
    script = made.scripts[take]
    sound = decode(clip_path(made.folder, script)).sound
    edge = FILM_SAMPLE_RATE // 20
    seconds = [sound[t * FILM_SAMPLE_RATE + edge : (t + 1) * FILM_SAMPLE_RATE - edge] for t in range(SECONDS)]
    levels = [10 * np.log10(np.mean(np.square(second))) for second in seconds]
    for level, names in zip(levels, script.audio, strict=True):
        assert (level > -32) if names else (level < -38)


def test_the_sound_begins_and_ends_with_the_event(made: Made) -> None:
    """A horn blows at least each second third of half a second: known to a tenth of a second."""
    script = Script("horn", "Train horn", ((),) * 4, ((), ("Train horn",), ("Train horn",), ()), "train")
    sound = make_film(script, SEED, 0).samples()[0]
    windows = np.square(sound[: SECONDS * FILM_SAMPLE_RATE].reshape(-1, FILM_SAMPLE_RATE // 50)).mean(1)
    loud = np.flatnonzero(windows > 0.1 * windows.max()) / 50
    assert 1 <= loud[0] < 1.2
    assert 2.78 < loud[-1] < 3


@pytest.mark.parametrize(
    ("name", "low_hz", "high_hz"),
    [("Bird song", 2000, 7000), ("Helicopter", 40, 1000), ("Church bell", 180, 1800), ("Clock", 1300, 5500)],
)
def test_a_class_sounds_in_its_own_band(made: Made, name: str, low_hz: float, high_hz: float) -> None:
    script = next(script for script in made.scripts if script.category == name)
    sound = decode(clip_path(made.folder, script)).sound
    onset, offset = script.event_seconds
    event = sound[onset * FILM_SAMPLE_RATE : offset * FILM_SAMPLE_RATE]
    power = np.square(np.abs(np.fft.rfft(event)))
    frequency_hz = np.fft.rfftfreq(len(event), 1 / FILM_SAMPLE_RATE)
    assert power[(frequency_hz >= low_hz) & (frequency_hz <= high_hz)].sum() > 0.9 * power.sum()


def test_sound_and_picture_start_together_at_zero(made: Made) -> None:
    written = make_film(made.scripts[0], SEED, 0).samples()[0]
    decoded = decode(clip_path(made.folder, made.scripts[0])).sound[: len(written)]
    product = np.fft.rfft(decoded) * np.conj(np.fft.rfft(written))
    assert int(np.argmax(np.fft.irfft(product, n=len(written)))) == 0


def test_annotations_follow_the_layout_of_ave(made: Made) -> None:
    lines = (made.folder / "Annotations.txt").read_text().splitlines()
    assert lines[0] == HEADER
    rows = [line.split("&") for line in lines[1:]]
    assert len(rows) == len({row[1] for row in rows}) == CLIPS
    assert {row[0] for row in rows} == set(CLASSES)
    for _, video, _, start, end in rows:
        assert (made.folder / "AVE" / f"{video}.mp4").is_file()
        assert 0 <= int(start) < int(end) <= SECONDS
    assert {"-", "_"} < {row[1][0] for row in rows}


def test_splits_share_no_video_and_hold_every_class(made: Made) -> None:
    splits = [(made.folder / f"{name}Set.txt").read_text().splitlines() for name in ("train", "val", "test")]
    videos = [{row.split("&")[1] for row in rows} for rows in splits]
    assert sum(map(len, videos)) == len(set.union(*videos)) == CLIPS
    assert [{row.split("&")[0] for row in rows} for rows in splits] == [set(CLASSES)] * 3
    annotations = (made.folder / "Annotations.txt").read_text().splitlines()[1:]
    assert sorted(row for rows in splits for row in rows) == sorted(annotations)


def test_default_splits_are_about_60_15_25() -> None:
    splits = [script.split for script in write_scripts(240, 0, CLASSES, 10)]
    assert [splits.count(name) for name in ("train", "val", "test")] == [144, 36, 60]


def test_an_event_is_where_object_and_sound_meet_and_each_alone_is_background() -> None:
    kinds = set()
    for script in write_scripts(48, 0, CLASSES, 10):
        own, (onset, offset) = (script.category,), script.event_seconds
        for second, (video, audio) in enumerate(zip(script.video, script.audio, strict=True)):
            both = video == audio == own
            assert both == (onset <= second < offset)
            assert own in (video, audio)
            if not both:
                kinds.add((video == own, bool(video), audio == own, bool(audio)))
    visible_alone, audible_alone = (True, True, False, False), (False, False, True, True)
    beside_another = {(True, True, False, True), (False, True, True, True)}
    assert kinds == {visible_alone, audible_alone} | beside_another


def test_the_seed_decides_every_byte(made: Made, tmp_path: Path) -> None:
    record(tmp_path / "again.mp4", made.scripts[1], SEED, 1)
    again = (tmp_path / "again.mp4").read_bytes()
    assert again == clip_path(made.folder, made.scripts[1]).read_bytes()
    record(tmp_path / "other.mp4", made.scripts[1], SEED + 1, 1)
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
    with pytest.raises(DatasetError, match="this call would not make"):
        compose(made.folder, clips=CLIPS, seed=SEED + 1, seconds=SECONDS)


@pytest.mark.parametrize("name", ["Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt"])
def test_annotations_of_another_origin_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Bark&-abc&good&0&10\n")
    with pytest.raises(DatasetError, match=f"{name}: was not made by this call"):
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
