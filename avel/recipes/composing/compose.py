"""Makes a small synthetic dataset in AVE's layout (Tian et al. 2018) whose events are known exactly."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from avel.errors import DatasetError, UnknownNameError
from avel.progress import Progress
from avel.recipes.composing.film import FPS, SAMPLE_RATE, make_film
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

    An event is a class that is both visible and audible, from one whole second to another. In the other
    seconds picture or sound is missing, or is of another class. The same arguments make the same clips;
    those that are there already stay as they are.

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
    paths = {number: clip_path(folder, script) for number, script in enumerate(scripts)}
    missing = [number for number, path in paths.items() if not path.exists()]
    done = clips - len(missing)
    with ThreadPoolExecutor(os.cpu_count()) as threads, Progress(clips, "clips", start=done) as progress:
        films = [threads.submit(record, paths[n], scripts[n], seed, n) for n in missing]
        for film in as_completed(films):
            film.result()
            progress.advance()
    for name, text in annotation_files(scripts).items():
        write_text(folder / name, text)
    return folder


def record(path: Path, script: Script, seed: int, number: int) -> None:
    """Writes `script` as the mp4 `path`; `seed` and the clip's number choose how it looks and sounds."""
    film = make_film(script, seed, number)
    write_mp4(path, film.frames(), FPS, film.samples(), SAMPLE_RATE)


def annotation_files(scripts: Sequence[Script]) -> dict[str, str]:
    """Returns AVE's text files by name: each split's lines, and all of them below a header."""
    lines = {
        script: f"{script.category}&{script.video_id}&good&{script.start_seconds}&{script.end_seconds}\n"
        for script in scripts
    }
    files = {"Annotations.txt": HEADER + "\n" + "".join(lines.values())}
    for split in ("train", "val", "test"):
        files[f"{split}Set.txt"] = "".join(line for script, line in lines.items() if script.split == split)
    return files


def clip_path(folder: Path, script: Script) -> Path:
    """Returns where a script's clip lies in the dataset."""
    return folder / "AVE" / f"{script.video_id}.mp4"


def _check_folder(folder: Path, scripts: Sequence[Script]) -> None:
    foreign = {path.name for path in folder.glob("AVE/*.mp4")} - {f"{s.video_id}.mp4" for s in scripts}
    if foreign:
        raise DatasetError(
            f"{folder / 'AVE'}: holds clips of other arguments or another origin, such as {min(foreign)}",
            hint="choose another folder, or remove this one",
        )
    for name, text in annotation_files(scripts).items():
        if (folder / name).exists() and (folder / name).read_bytes() != text.encode():
            raise DatasetError(
                f"{folder / name}: is of other arguments or another origin, and would be overwritten",
                hint="choose another folder, or move this file away",
            )
