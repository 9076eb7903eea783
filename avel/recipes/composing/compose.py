"""Makes a small synthetic dataset in the layout of a published one, whose events are known exactly."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from avel.ahead import usable_cores
from avel.errors import ConfigError, DatasetError, UnknownNameError
from avel.progress import Progress
from avel.recipes.composing.film import FPS, SAMPLE_RATE, SUBJECTS, make_film
from avel.recipes.composing.layouts import LAYOUTS, FolderLayout
from avel.recipes.composing.mp4 import write_mp4
from avel.recipes.composing.script import Course, Script, write_scripts
from avel.stores.files import write_text

CLASSES = tuple(SUBJECTS)


def compose(
    folder: str | Path,
    *,
    clips: int = 48,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
    seconds: int = 10,
    layout: str = "ave",
    course: Course | None = None,
) -> Path:
    """Makes `clips` clips of `seconds` whole seconds with their annotations and splits; returns the folder.

    An event is a class that is both visible and audible, from one whole second to another. In the other
    seconds picture or sound is missing, or is of another class. In LLP's layout a class may be audible or
    visible alone, and several may be at once. The same arguments make the same clips;
    those that are there already stay as they are.

    Args:
        layout: the dataset in whose layout it is written, by the name of its format.
        course: which events a clip has; by default the first course that the layout can express.

    Raises:
        ConfigError: too few clips, classes or seconds; seconds or a course that the layout cannot express.
        UnknownNameError: a class that cannot be drawn, or no such layout.
        DatasetError: `folder` holds other clips or annotations.

    >>> compose("demo/dataset", clips=18)  # doctest: +SKIP
    PosixPath('demo/dataset')
    """
    folder = Path(folder)
    for name in classes:
        if name not in SUBJECTS:
            raise UnknownNameError("demo class", name, SUBJECTS)
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    chosen = LAYOUTS[layout]
    scripts = write_scripts(clips, seed, classes, seconds, course or chosen.courses[0], chosen.unseen)
    _check_layout(layout, seconds, course)
    _check_folder(folder, scripts, chosen)
    paths = {number: clip_path(folder, script, number, layout) for number, script in enumerate(scripts)}
    missing = [number for number, path in paths.items() if not path.exists()]
    done = clips - len(missing)
    with (
        ThreadPoolExecutor(usable_cores()) as threads,
        Progress(clips, "clips", of="composing", start=done) as progress,
    ):
        films = [threads.submit(record, paths[n], scripts[n], seed, n) for n in missing]
        for film in as_completed(films):
            film.result()
            progress.advance()
    for name, text in chosen.files(scripts).items():
        write_text(folder / name, text)
    return folder


def record(path: Path, script: Script, seed: int, number: int) -> None:
    """Writes `script` as the mp4 `path`; `seed` and the clip's number choose how it looks and sounds."""
    film = make_film(script, seed, number)
    write_mp4(path, film.frames(), FPS, film.samples(), SAMPLE_RATE)


def clip_path(folder: Path, script: Script, number: int = 0, layout: str = "ave") -> Path:
    """Returns where the clip of a script, of that number, lies in the dataset."""
    return folder / LAYOUTS[layout].clip(number, script)


def _check_layout(layout: str, seconds: int, course: Course | None) -> None:
    chosen = LAYOUTS[layout]
    if chosen.seconds not in (None, seconds):
        raise ConfigError(f"seconds={seconds}: clips of {layout} have {chosen.seconds} seconds")
    if course is not None and course not in chosen.courses:
        able = [name for name, other in LAYOUTS.items() if course in other.courses]
        raise ConfigError(
            f"course={course!r}: the layout of {layout} cannot express it",
            hint=f"layout={' or '.join(map(repr, able))}",
        )


def _check_folder(folder: Path, scripts: Sequence[Script], layout: FolderLayout) -> None:
    own = {folder / layout.clip(number, script) for number, script in enumerate(scripts)}
    for place in sorted({path.parent for path in own}):
        foreign = set(place.glob("*.mp4")) - own
        if foreign:
            raise DatasetError(
                f"{place}: holds clips that this call would not make, such as {min(foreign).name}",
                hint="choose another folder, or remove this one",
            )
    for name, text in layout.files(scripts).items():
        if (folder / name).exists() and (folder / name).read_bytes() != text.encode():
            raise DatasetError(
                f"{folder / name}: was not made by this call, and would be overwritten",
                hint="choose another folder, or move this file away",
            )
