"""A path of the wrong kind is named for what it is, with the commands that take it."""

import importlib
import os
import shlex
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import avel
from avel.cli import cli
from avel.console import ERROR, run
from avel.errors import MissingPathError, StoreError
from avel.heads.train import train_head
from avel.heads.training.records import load_model, read_trials
from avel.stores.datasets.dataset import Dataset
from avel.stores.features import FeatureCache
from avel.stores.kinds import kind_of
from avel.stores.runs import Run
from avel.text import html_table
from tests.heads.synthetic import write_cache


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one thing of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    write_cache(folder / "cache.h5")
    train_head(folder / "cache.h5", folder / "runs" / "mlp", head="mlp", epochs=1)
    (folder / "store").mkdir()
    (folder / "store" / "zarr.json").write_text("{}")
    (folder / "videos").mkdir()
    (folder / "my videos").mkdir()
    (folder / "clip.mp4").write_bytes(b"no video yet")
    (folder / "notes.txt").write_text("notes")
    return folder


def test_each_kind_is_known(paths: Path) -> None:
    found = {path.name: kind_of(path) for path in paths.iterdir()}
    assert found == {
        "cache.h5": "cache",
        "runs": "runs",
        "store": "store",
        "videos": "dataset",
        "my videos": "dataset",
        "clip.mp4": "video",
        "notes.txt": "file",
    }
    assert kind_of(paths / "runs" / "mlp") == "run"
    assert kind_of(paths / "nowhere") == "nothing"
    assert kind_of("s3://bucket/store") == "store"


def test_a_file_that_cannot_be_read_is_known_by_its_name(
    paths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "open", closed)
    assert kind_of(paths / "clip.mp4") == "video"
    assert kind_of(paths / "cache.h5") == "file"


def test_a_folder_that_may_not_be_looked_into_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, user = Path(tempfile.mkdtemp()), os.geteuid()
    place.chmod(0o755)
    for name, mode in (("closed", 0), ("unlisted", 0o311)):
        (place / name / "store").mkdir(parents=True)
        (place / name).chmod(mode)
    importlib.import_module("avel.stores.datasets.audit")  # before the user changes, who may not read it
    try:
        if user == 0:
            os.seteuid(65534)
        for path in (place / "closed", place / "closed" / "store"):
            with pytest.raises(StoreError, match=rf"{path}: Permission denied\n.*access rights"):
                kind_of(path)
            assert run(cli, ["inspect", str(path)]) == ERROR
        assert run(cli, ["inspect", str(place / "unlisted")]) == ERROR
    finally:
        os.seteuid(user)
        for name in ("closed", "unlisted"):
            (place / name).chmod(0o755)
        shutil.rmtree(place)
    assert "folder cannot be read" in capsys.readouterr().err


def test_open_opens_each_as_what_it_is(paths: Path) -> None:
    cache, run = avel.open(paths / "cache.h5"), avel.open(paths / "runs" / "mlp")
    assert isinstance(cache, FeatureCache)
    assert f"{len(cache)} clips, 60 samples, 3 classes and background" in repr(cache)
    assert list(cache) == list(cache.video_ids)
    assert isinstance(run, Run)
    assert "avel train-head, finished on" in repr(run)
    (paths / "videos" / "clip.mp4").touch()
    dataset = avel.open(paths / "videos")
    assert isinstance(dataset, Dataset)
    assert repr(dataset) == "<Dataset videos: 0 samples of 1 video, 0 classes and background>"
    assert list(dataset) == list(dataset.samples)
    for each, words in (
        (cache, "and background"),
        (run, "train-head"),
        (dataset, "0 classes and background"),
    ):
        html = each._repr_html_()
        assert words in html
        assert html.count("<table>") == html.count("</table>") == 1
    with pytest.raises(StoreError, match=r"notes\.txt is a file that is none of avel's"):
        avel.open(paths / "notes.txt")
    with pytest.raises(MissingPathError, match=r"no dataset, store, cache or run\n  next: check the path"):
        avel.open(paths / "nothing")


def test_an_evaluation_reads_like_its_groups(paths: Path) -> None:
    found = avel.evaluate(paths / "runs" / "mlp")
    assert (len(found), list(found), found["mlp"]) == (1, ["mlp"], found.groups["mlp"])
    assert repr(found) == f"<Evaluation {paths / 'runs' / 'mlp'}, test: {found.headline()}>"
    assert found.headline() in found._repr_html_()


def test_what_strangers_wrote_is_text_in_a_notebook() -> None:
    assert "<script>" not in html_table("<script>", {"<script>": "<script>"})


def test_a_trained_head_is_a_module_on_tensors(paths: Path) -> None:
    cache = FeatureCache.open(paths / "cache.h5")
    model = avel.load_head(paths / "runs" / "mlp")
    inputs = [torch.from_numpy(cache.read(name, np.array([0, 1]))) for name in ("f_a", "f_v")]
    scores = model(*inputs).logits
    kept = load_model(Run.open(paths / "runs" / "mlp"), read_trials(Run.open(paths / "runs" / "mlp"))[0])
    assert scores.shape == (2, cache.grid_segments, cache.classes)
    assert not model.training
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(StoreError, match="no trained trial 'seed=7'"):
        avel.load_head(paths / "runs" / "mlp", "seed=7")


@pytest.mark.parametrize(
    ("command", "said", "following"),
    [
        (
            "reproduce table2 cache.h5 out",
            "cache.h5 is a feature cache, not a clip store",
            "train-head cache.h5",
        ),
        ("pretrain videos out", "videos is a folder of files, not a clip store", "avel extract videos STORE"),
        ("cache-features runs/mlp out.h5", "runs/mlp is a run, not a clip store", "avel evaluate runs/mlp"),
        ("train-head store out", "store is a clip store, not a feature cache", "avel pretrain store RUN"),
        ("train-head runs/mlp out", "runs/mlp is a run, not a feature cache", "avel evaluate runs/mlp"),
        ("train-head runs/mlp cache.h5", "arguments swapped?", "avel train-head cache.h5 runs/mlp"),
        (
            "train-head out cache.h5",
            "cache.h5 is a feature cache: arguments swapped?",
            "train-head cache.h5 out",
        ),
        ("train-head cache.h5 store", "store is a clip store; avel train-head writes a run to RUN", "next:"),
        ("train-head cache.h5 runs", "runs is a folder of runs; avel train-head writes a run", "runs/NAME"),
        ("cache-features cache.h5 store", "arguments swapped?", "avel cache-features store cache.h5"),
        ("extract store videos", "arguments swapped?", "avel extract videos store"),
        ("extract videos cache.h5", "cache.h5 is a feature cache; avel extract writes a clip store", "next:"),
        ("extract clip.mp4 out", "clip.mp4 is a video, not a folder of videos", "avel predict RUN clip.mp4"),
        ("extract store out", "store is a clip store, not a folder of videos", "avel pretrain store RUN"),
        ("predict runs/mlp videos", "videos is a folder, not a video", "videos/*.mp4"),
        ("predict clip.mp4 runs/mlp", "arguments swapped?", "avel predict runs/mlp clip.mp4"),
        ("reproduce table2 runs store", "arguments swapped?", "avel reproduce -h shows their order"),
        ("score runs/mlp --dataset videos", "runs/mlp is a run, not a file of predictions", "avel evaluate"),
        ("runs cache.h5", "cache.h5 is a feature cache, not a folder of runs", "avel train-head"),
        ("diff cache.h5 store", "store is a clip store, not a feature cache", "avel pretrain store RUN"),
        ("evaluate cache.h5", "cache.h5 is a feature cache, not a run", "train-head"),
        ("evaluate runs", "runs is a folder of runs, not a run", "avel runs runs"),
        ("inspect notes.txt", "notes.txt is a file that is none of avel's", "avel --help"),
        ("inspect runs", "runs is a folder of runs", "avel runs runs"),
        ("extract nowhere out", "nowhere: no folder of videos", "next:"),
        ("evaluate nowhere", "nowhere: no run", "avel train-head"),
        (
            "evaluate 'my videos'",
            "my videos is a folder of files, not a run",
            "avel extract 'my videos' STORE",
        ),
        (
            "import-features store out",
            "store is a clip store, not a folder of features",
            "avel cache-features",
        ),
        ("import-features runs/mlp out.h5", "runs/mlp is a run, not a folder of features", "avel evaluate"),
        (
            "import-features videos store",
            "store is a clip store; avel import-features writes a feature",
            "next:",
        ),
        (
            "import-features new.h5 --audio store --dataset videos",
            "store is a clip store, not a folder of features",
            "avel cache-features store",
        ),
        (
            "cache-features store new.h5 --encoder cache.h5",
            "cache.h5 is a feature cache, not a run",
            "avel train-head cache.h5",
        ),
        (
            "cache-features store new.h5 --encoder runs",
            "runs is a folder of runs, not a run",
            "avel runs runs",
        ),
        ("evaluate notes.txt --cache runs/mlp", "runs/mlp is a run, not a feature cache", "avel evaluate"),
        (
            "predict runs/mlp clip.mp4 --encoder store",
            "store is a clip store, not a run",
            "avel pretrain store",
        ),
        (
            "runs runs --against cache.h5",
            "cache.h5 is a feature cache, not a run",
            "avel train-head cache.h5",
        ),
        ("score notes.txt --dataset store", "store is a clip store, not a folder of annotations", "next:"),
    ],
)
def test_a_command_says_what_it_was_given(
    command: str,
    said: str,
    following: str,
    paths: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(paths)
    before = set(paths.rglob("*"))
    assert run(cli, shlex.split(command)) == ERROR
    shown = capsys.readouterr().err
    assert said in shown
    assert following in shown
    assert "overwrite" not in shown
    assert set(paths.rglob("*")) == before
