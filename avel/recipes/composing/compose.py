"""A small dataset made from nothing: real mp4 clips in AVE's layout, events known by construction.

Source: the layout is that of AVE (Tian et al., ECCV 2018); the clips are drawn and synthesised here.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from avel.errors import DatasetError, UnknownNameError
from avel.progress import Progress
from avel.recipes.composing.film import cast, choose_camera, film_frames
from avel.recipes.composing.mix import film_sound
from avel.recipes.composing.mp4 import write_mp4
from avel.recipes.composing.script import Script, write_scripts
from avel.recipes.composing.subjects import SUBJECTS
from avel.stores.files import write_text

CLASSES = tuple(SUBJECTS)
HEADER = "Category&VideoID&Quality&StartTime&EndTime"


def compose(
    folder: str | Path, *, clips: int = 48, seed: int = 0, classes: Sequence[str] = CLASSES, seconds: int = 10
) -> Path:
    """Makes `clips` clips of `seconds` whole seconds with their annotations and splits; returns the folder.

    An event is a class that is seen and heard, between whole seconds. The seconds around it hold the object
    without its sound, the sound without the object, neither, or another class's sound or object. The same
    arguments make the same clips; clips that are there already are kept.

    Raises:
        ConfigError: too few clips, classes or seconds.
        UnknownNameError: a class that cannot be drawn.
        DatasetError: `folder` holds other clips or annotations.

    >>> compose("demo/dataset", clips=18)  # doctest: +SKIP
    PosixPath('demo/dataset')
    """
    folder = Path(folder)
    for name in classes:
        if name not in SUBJECTS:
            raise UnknownNameError("demo class", name, SUBJECTS)
    scripts = write_scripts(clips, seed, classes, seconds)
    _check_folder(folder, scripts)
    waiting = [take for take, script in enumerate(scripts) if not clip_path(folder, script).exists()]
    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        Progress(clips, "clips", start=clips - len(waiting)) as progress,
    ):
        films = [
            threads.submit(film, clip_path(folder, scripts[take]), scripts[take], seed, take)
            for take in waiting
        ]
        for done in as_completed(films):
            done.result()
            progress.advance()
    for name, text in annotation_files(scripts).items():
        write_text(folder / name, text)
    return folder


def film(path: Path, script: Script, seed: int, take: int) -> None:
    """Records `script` into the mp4 `path`; `seed` and `take` choose camera, scene, colours and pitches."""
    rng = np.random.default_rng([seed, take])
    camera = choose_camera(rng, take)
    actors = cast(rng, script, camera)
    sound = film_sound(rng, camera, actors, script.heard)
    frames = film_frames(rng, camera, actors, len(script.seen))
    write_mp4(path, frames, camera.fps, sound, camera.hz)


def rows(scripts: Sequence[Script], split: str | None = None) -> list[str]:
    """Annotation lines `Category&VideoID&Quality&StartTime&EndTime`, one for each class of an event."""
    return [
        f"{name}&{script.video_id}&good&{script.start_seconds}&{script.end_seconds}"
        for script in scripts
        if split in (None, script.split)
        for name in script.categories
    ]


def annotation_files(scripts: Sequence[Script]) -> dict[str, str]:
    """AVE's text files by name: each split's lines, and all of them below a header."""
    splits = {"trainSet.txt": "train", "valSet.txt": "val", "testSet.txt": "test"}
    files = {name: "".join(row + "\n" for row in rows(scripts, split)) for name, split in splits.items()}
    return files | {"Annotations.txt": "\n".join([HEADER, *rows(scripts)]) + "\n"}


def clip_path(folder: Path, script: Script) -> Path:
    """Where a script's clip lies in the dataset."""
    return folder / "AVE" / f"{script.video_id}.mp4"


def _check_folder(folder: Path, scripts: Sequence[Script]) -> None:
    strangers = {path.name for path in folder.glob("AVE/*.mp4")} - {f"{s.video_id}.mp4" for s in scripts}
    if strangers:
        raise DatasetError(
            f"{folder / 'AVE'}: holds clips of other arguments or another origin, such as {min(strangers)}",
            hint="choose another folder, or remove this one",
        )
    for name, text in annotation_files(scripts).items():
        if (folder / name).exists() and (folder / name).read_bytes() != text.encode():
            raise DatasetError(
                f"{folder / name}: is of other arguments or another origin, and would be overwritten",
                hint="choose another folder, or move this file away",
            )
