"""Makes a small synthetic dataset in AVE's layout, whose events are known exactly."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from avel.ahead import usable_cores
from avel.errors import DatasetError, UnknownNameError
from avel.progress import Progress
from avel.recipes.composing.film import FILM_SAMPLE_RATE, FPS, SUBJECTS, make_film
from avel.recipes.composing.mp4 import write_mp4
from avel.recipes.composing.script import Script, write_scripts
from avel.stores.datasets.sample import SPLITS
from avel.stores.files import write_text

CLASSES = tuple(SUBJECTS)
HEADER = "Category&VideoID&Quality&StartTime&EndTime"


def compose(
    folder: str | Path, *, clips: int = 48, seed: int = 0, classes: Sequence[str] = CLASSES, seconds: int = 10
) -> Path:
    """Makes `clips` clips of `seconds` whole seconds with their annotations and splits; returns the folder.

    The event of a clip is where its class is both visible and audible, from one whole second to another. In
    the other seconds picture or sound is missing, or is of another class. The same arguments make the same
    clips; those that are there already stay as they are.

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
    files = {folder / name: text for name, text in annotation_files(scripts).items()}
    paths = [clip_path(folder, script) for script in scripts]
    _check_folder(folder, paths, files)
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    with (
        ThreadPoolExecutor(usable_cores()) as threads,
        Progress(clips, "clips", of="composing", start=clips - len(missing)) as progress,
    ):
        films = [threads.submit(record, paths[n], scripts[n], seed, n) for n in missing]
        for film in as_completed(films):
            film.result()
            progress.advance()
    for path, text in files.items():
        write_text(path, text)
    return folder


def record(path: Path, script: Script, seed: int, number: int) -> None:
    """Writes `script` as the mp4 `path`; `seed` and the clip's number choose how it looks and sounds."""
    film = make_film(script, seed, number)
    write_mp4(path, film.frames(), FPS, film.samples(), FILM_SAMPLE_RATE)


def clip_path(folder: Path, script: Script) -> Path:
    """Returns where the clip of a script lies in the dataset."""
    return folder / "AVE" / f"{script.video_id}.mp4"


def annotation_files(scripts: Sequence[Script]) -> dict[str, str]:
    """Returns AVE's text files by name: each split's lines, and all of them below a header."""
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    for script in scripts:
        onset, offset = script.event_seconds
        lines[script.split].append(f"{script.category}&{script.video_id}&good&{onset}&{offset}\n")
    files = {f"{split}Set.txt": "".join(own) for split, own in lines.items()}
    return {"Annotations.txt": HEADER + "\n" + "".join(files.values())} | files


def _check_folder(folder: Path, paths: Sequence[Path], files: dict[Path, str]) -> None:
    if foreign := {*folder.glob("AVE/*.mp4")} - {*paths}:
        raise DatasetError(
            f"{folder / 'AVE'}: holds clips that this call would not make, such as {min(foreign).name}",
            hint="choose another folder, or remove this one",
        )
    for path, text in files.items():
        if path.exists() and path.read_bytes() != text.encode():
            raise DatasetError(
                f"{path}: was not made by this call, and would be overwritten",
                hint="choose another folder, or move this file away",
            )
