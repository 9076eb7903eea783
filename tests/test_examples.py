"""Every example of the docs runs as it stands, in a small world that holds what the pages name.

Settings that make seconds of hours are added to what trains encoders (SMALL), and heads train for few epochs;
an option that the example gives, and its preset's projector, win over them. What cannot run here is parsed,
and named with its reason (ELSEWHERE).
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import avel
from avel import progress
from avel.cli import cli
from avel.config import resolve
from avel.console import DONE, run
from avel.grid import Grid
from avel.heads.config import HEADS, TrainConfig
from avel.pipeline.config import VISUAL_BACKBONES, CacheConfig, ExtractConfig, PretrainConfig
from avel.pipeline.encoders.vectors import CACHED
from avel.pipeline.pretraining.presets import PRESETS
from avel.recipes.composing.compose import compose
from avel.recipes.composing.film import SUBJECTS
from avel.stores.datasets.formats import read_dataset
from tests.layouts import scripts_of, write_layout

CONFIGS = {
    "extract": ExtractConfig,
    "pretrain": PretrainConfig,
    "cache-features": CacheConfig,
    "train-head": TrainConfig,
}
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLIPS, CLASSES, EPOCHS = 12, 4, 5

BACKBONES = ("visual_backbone=tiny", "audio_backbone=tiny", "visual_weights=random", "audio_weights=random")
PROJECTOR = "projector=64-64-64"
ENCODER = (*BACKBONES, PROJECTOR, "epochs=2", "batch_size=8", "crop_size=64")
SMALL: dict[str, tuple[str, ...]] = {
    "pretrain": ENCODER,
    "reproduce": tuple(f"pretrain.{setting}" for setting in ENCODER),
}
"""Command -> settings under which its examples take seconds."""

ELSEWHERE = {
    "make demo    # every stage": "takes minutes; the tutorial runs its stages",
    "make test    # ruff": "is what runs this test",
    "torchrun --nproc-per-node 4": "tests/pipeline/pretraining/test_pretrain.py runs it with two processes",
    "# ~/.bashrc": "tests/test_completion.py prints and uses them",
    "class Gated(Head)": "tests/heads/models/test_extending.py trains this head",
    '[project.entry-points."avel.heads"]': "tests/heads/models/test_extending.py installs this package",
    "class Tracks(DatasetFormat": "tests/stores/datasets/test_formats.py reads by this format",
    '[project.entry-points."avel.dataset_formats"]': "tests/stores/datasets/test_formats.py installs it",
    "python -m pytest tests/heads/models/test_contract.py -k gated": "needs that package beside a checkout",
    "# watch_wandb.py": "needs an account; tests/stores/test_watching.py calls such a function",
    "$ avel cache-features small.zarr vectors.h5": "downloads the weights of ResNet-18 and VGGish",
    "$ avel cache-features vectors.h5 small.h5": "needs those vectors; tests/pipeline/caching makes its own",
    "$ avel extract LLP": "tests/recipes/test_parsing.py runs them on clips in that layout",
    "$ avel cache-features llp.zarr": "goes on from those clips",
    "$ avel train-head llp.h5": "goes on from those clips",
    "$ avel evaluate runs/han": "goes on from those clips",
    "$ avel compare runs/han": "goes on from those clips",
    "$ avel report runs/han": "goes on from those clips",
    "$ avel score runs/han": "goes on from those clips",
    "$ avel extract semireal": "its clips hold other people's recordings and photos",
    "$ avel reproduce table2 small.zarr": "takes an hour, and those clips",
    "$ avel reproduce figure6 small.zarr": "takes an hour, and those clips",
    "$ avel extract OV-AVEBench": "tests/recipes/composing/test_layouts.py composes such clips",
    "$ avel cache-features ov.zarr": "goes on from those clips",
    "$ avel train-head ov.h5": "goes on from those clips",
    "$ avel evaluate runs/ov-mlp": "goes on from those clips",
    "$ avel pretrain small.zarr avbt": "takes an hour, and those clips",
    "$ avel cache-features small.zarr avbt.h5": "needs that encoder",
    "$ avel leaderboard avbt.h5 board": "takes an hour, and those clips",
}
"""How an example begins that does not run here -> the reason."""


def given_for_tutorial() -> None:
    """The clips of the demo."""
    shutil.copytree("AVE_Dataset", "demo/clips", copy_function=os.link)


def given_for_heads() -> None:
    """No heads yet."""
    shutil.rmtree("runs/tacma")


def given_for_pretrain() -> None:
    """No encoder yet, and a store of four clips without labels."""
    shutil.rmtree("runs")
    Path("few").mkdir()
    for clip in sorted(Path("AVE_Dataset/AVE").glob("*.mp4"))[:4]:
        os.link(clip, Path("few", clip.name))
    avel.extract("few", "small.zarr", workers=1)


def given_for_exchange() -> None:
    """The field's files with rows of the published width, vectors by clip, and two caches to compare."""
    avel.export_features("ave.h5", "AVE_features")
    for name, width in (("audio_feature", 128), ("visual_feature_vec", 512)):
        with h5py.File(f"AVE_features/{name}.h5", "r+") as file:
            values = np.tile(file.pop("avadataset")[()], 4)[..., :width]
            file["avadataset"] = values
    for name, shape in (("beats/{}", (20, 8)), ("out/{}_clip", (10, 16))):
        os.mkdir(os.path.dirname(name))
        for video in read_dataset("AVE_Dataset").videos:
            np.save(name.format(video.video_id), np.ones(shape))
    os.rename("ave.h5", "mine.h5")
    os.link("mine.h5", "theirs.h5")


def given_for_own_clips() -> None:
    """Four videos in a folder, and a CSV of their events."""
    clips = sorted(Path("AVE_Dataset/AVE").glob("*.mp4"))[:4]
    for clip in clips:
        put(Path("videos", clip.name), "")
        Path("videos", clip.name).unlink()
        os.link(clip, Path("videos", clip.name))
    rows = [f"{clip.name},Bell,1,{4 + number},train" for number, clip in enumerate(clips)]
    put(Path("events.csv"), "\n".join(["file,class,onset,offset,split", *rows]))


def given_for_comparing() -> None:
    """A sweep, and predictions in the order of the annotations."""
    dataset = read_dataset("AVE_Dataset")
    np.save("labels.npy", dataset.labels(Grid()))
    avel.sweep("ave.h5", "runs/theta", {"theta": [0, 0.03]})


def given_for_report() -> None:
    """A sweep, and two videos."""
    avel.sweep("ave.h5", "runs/theta", {"theta": [0, 0.03]})
    for name, clip in zip(("street.mp4", "market.mp4"), Path("AVE_Dataset/AVE").glob("*.mp4"), strict=False):
        os.link(clip, name)


def given_for_datasets() -> None:
    """Each dataset's annotations as composed ones, with empty clips, and some annotations of another name."""
    names = {"ave-pm": "AVE-PM", "ov-avebench": "OV-AVEBench", "vggsound-avel": "VGGSound-AVEL"}
    names |= {"activitynet": "UnAV-100", "desed": "DESED"}
    for layout, folder in names.items():
        write_layout(Path(folder), layout, scripts_of(layout, 9, ("Clock", "Frog", "Bird song")))
    shutil.copytree("UnAV-100/videos", "videos")
    shutil.copy("UnAV-100/annotations/annotations.json", "mine.json")


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


GIVEN: dict[str, Callable[[], None]] = {
    "tutorial": given_for_tutorial,
    "heads": given_for_heads,
    "pretrain": given_for_pretrain,
    "datasets": given_for_datasets,
    "exchange": given_for_exchange,
    "comparing": given_for_comparing,
    "own-clips": given_for_own_clips,
    "report": given_for_report,
}
"""Page -> makes what its examples take as given, beyond what the README's commands have made."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page that have a language: (language, text)."""
    return re.findall(r"^```([a-z]+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def elsewhere(text: str) -> bool:
    return text.startswith(tuple(ELSEWHERE))


def run_block(language: str, text: str, page: Path, names: dict[str, object]) -> None:
    """Runs one block; a TOML block is kept under the name in its first line, and is resolved.

    Python goes on with the names of the page's earlier blocks, as the cells of a notebook do.
    """
    if language != "console" and any(map(elsewhere, text.splitlines())):
        return
    if language == "python":
        exec(compile(text, str(page), "exec"), names)
    elif language == "toml":
        file = Path(text.splitlines()[0].removeprefix("# "))
        file.write_text(text)
        for stage in tomllib.loads(text):
            resolve(CONFIGS[stage], stage, file=file)
    else:
        assert language == "console", f"{page.name}: nothing runs a block of {language}"
        for line in text.replace("\\\n", "").splitlines():  # a command may go on after a backslash
            run_line(line)


def run_line(line: str) -> None:
    """Runs `$ avel ...`, or parses it where it cannot run."""
    if not line.startswith("$ avel "):
        assert elsewhere(line), f"nothing runs {line}"
        return
    words = shlex.split(line)[2:]
    command = next(word for word in words if word in cli.commands)
    if elsewhere(line):
        cli.commands[command].make_context(command, words[words.index(command) + 1 :])
        return
    chosen = PRESETS.get(words[words.index("--preset") + 1], {}) if "--preset" in words else {}
    small = [each for each in SMALL.get(command, ()) if each != PROJECTOR or "projector" not in chosen]
    added = [word for setting in small for word in ("--set", setting)]
    assert run(cli, words + added) == DONE, line


def few_epochs(patch: pytest.MonkeyPatch) -> None:
    """Gives every head few epochs by default."""
    for name in HEADS:
        own = HEADS[name].Config
        few = dataclasses.make_dataclass("Config", [("epochs", int, EPOCHS)], bases=(own,), frozen=True)
        patch.setattr(HEADS[name], "Config", few)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands have run on composed clips."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        few_epochs(patch)
        compose("AVE_Dataset", clips=CLIPS, classes=sorted(SUBJECTS)[:CLASSES])
        names: dict[str, object] = {"__name__": "__main__"}
        for language, text in blocks(PAGES[0]):
            run_block(language, text, PAGES[0], names)
    return folder


@pytest.fixture
def copy(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to work in; what an example registers or silences ends with it."""
    shutil.copytree(world, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "_level", 1)
    entries = {name: VISUAL_BACKBONES[name] for name in (*VISUAL_BACKBONES, CACHED)}
    monkeypatch.setattr(VISUAL_BACKBONES, "_entries", entries)
    few_epochs(monkeypatch)
    return tmp_path


@pytest.mark.slow
def test_the_examples_of_the_readme_run(world: Path) -> None:
    assert avel.inspect(world / "runs" / "tacma").whole


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if blocks(page)], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(copy: Path, page: Path) -> None:
    GIVEN.get(page.stem, lambda: None)()
    names: dict[str, object] = {"__name__": "__main__"}
    for language, text in blocks(page):
        run_block(language, text, page, names)


@pytest.mark.parametrize(
    "way",
    ['.of_split("train"', 'avel.as_table("ave.h5"', 'avel.as_torch("ave.h5"', 'avel.as_torch("ave.zarr"'],
)
def test_the_notebook_shows_each_way_to_code_of_ones_own(way: str) -> None:
    (page,) = (page for page in PAGES if page.name == "notebook.md")
    assert any(way in text for language, text in blocks(page) if language == "python")


INDENTED = [
    line.split("||")[0]
    for page in PAGES
    for line in re.findall(r"^    avel (.*)", page.read_text().replace("\\\n", ""), re.MULTILINE)
]
"""Commands in blocks without a language, which are not run here."""
NOT_PARSED = ("--format tracks", "${OPTIONS")
"""Parts of those that need a package or a shell; tests of dataset formats and of clusters run them."""


@pytest.mark.parametrize("line", [line for line in INDENTED if not any(part in line for part in NOT_PARSED)])
def test_indented_commands_can_be_parsed(line: str) -> None:
    command, *words = shlex.split(line, comments=True)
    cli.commands[command].make_context(command, words)


@pytest.mark.parametrize("beginning", ELSEWHERE)
def test_what_does_not_run_here_still_stands_in_the_docs(beginning: str) -> None:
    texts = [text for page in PAGES for _, text in blocks(page)]
    assert any(line.startswith(beginning) for text in texts for line in [text, *text.splitlines()])
