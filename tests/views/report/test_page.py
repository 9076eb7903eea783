"""What a report's folder holds, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
import torch

from avel.errors import ConfigError, StaleError, StoreError
from avel.heads.evaluation.compare import compare
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.evaluation import GroupEvaluation
from avel.heads.evaluation.predictions import read_predictions
from avel.heads.folds import cross_validate
from avel.heads.train import sweep, train_head
from avel.heads.training.records import load_model, read_trial
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import ClassTable
from avel.stores.features import write_features
from avel.stores.runs import Run
from avel.text import as_plain, from_plain
from avel.views.embedding import obstacle, tsne
from avel.views.footage import Footage
from avel.views.inside import look_inside
from avel.views.plots.plot import plot
from avel.views.reading import read_run
from avel.views.report.folder import LIST, own_files, put_in_place
from avel.views.report.page import report
from avel.views.report.pictures import spectrogram, strip, write_pictures
from tests.heads import synthetic
from tests.samples import cached_samples
from tests.views.made import CATEGORIES, HOSTILE, IDS, Made, T, write_cache, write_runs


def data(folder: Path, name: str) -> Any:
    """The value of a data file."""
    text = (folder / "data" / f"{name}.js").read_text()
    return json.loads(text[text.index(", ") + 2 :].removesuffix(");\n"))


def test_videos_are_linked_by_relative_paths_that_lead_there(made: Made, tmp_path: Path) -> None:
    made_page = report(made.runs, tmp_path / "page", tsne=False)
    clips = data(tmp_path / "page", "clips")
    assert made_page.clips == len(clips["sample"]) == 8
    for link, video_id in zip(clips["path"], clips["video_id"], strict=True):
        assert link.startswith("./")
        target = (tmp_path / "page" / unquote(link)).resolve()
        assert target == (made.folder / "data set" / f"{video_id}.mp4").resolve()


def test_no_data_file_holds_markup(made: Made, tmp_path: Path) -> None:
    report(made.runs, tmp_path / "page", tsne=False)
    for path in (tmp_path / "page" / "data").iterdir():
        assert not set("<>&") & set(path.read_text())
    assert HOSTILE in data(tmp_path / "page", "summary")["classes"]


def test_nothing_is_fetched_from_the_network(made: Made, tmp_path: Path) -> None:
    report(made.runs, tmp_path / "page", tsne=False)
    for path in (tmp_path / "page").iterdir():
        if path.suffix in (".html", ".js", ".css"):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text
            assert "https:" not in text


def test_numbers_are_those_of_evaluate(made: Made, tmp_path: Path) -> None:
    report(made.runs, tmp_path / "page", tsne=False)
    summary = data(tmp_path / "page", "summary")
    for path, run in zip(made.runs, summary["runs"], strict=True):
        assert set(run["measured"]) == {"test", "val"}
        for split, measured in run["measured"].items():
            assert from_plain(GroupEvaluation, measured) == evaluate(path, split).groups[path.name]
        assert [curve["epoch"] for curve in run["curves"]["loss"]] == [[1, 2, 3], [1, 2, 3]]


def test_pairs_of_runs_are_compared_as_the_command_does(made: Made, tmp_path: Path) -> None:
    report(made.runs, tmp_path / "page", tsne=False)
    summary = data(tmp_path / "page", "summary")
    assert set(summary["comparisons"]) == {"test", "val"}
    for split, pairs in summary["comparisons"].items():
        assert set(pairs) == {"0-1"}
        found = compare(*made.runs, split=split).differences
        assert pairs["0-1"] == {
            name: as_plain(each) | {"needed": each.needed} for name, each in found.items()
        }
    report(made.runs[:1], tmp_path / "one", tsne=False)
    assert data(tmp_path / "one", "summary")["comparisons"] == {}


def test_whatever_a_run_has_swept_is_charted(made: Made, tmp_path: Path) -> None:
    options = {"head": "mlp", "epochs": 1, "seeds": 2, "device": "cpu"}
    sweep(made.cache, tmp_path / "run", {"modality": ["visual", "audio"], "batch_size": [8, 4]}, **options)
    report([tmp_path / "run", *made.runs], tmp_path / "page", tsne=False)
    sweeps = {chart["setting"]: chart for chart in data(tmp_path / "page", "summary")["sweeps"]}
    assert {name: chart["values"] for name, chart in sweeps.items()} == {
        "modality": ["visual", "audio"],
        "batch_size": ["4", "8"],
    }
    found = evaluate(tmp_path / "run").groups
    line = sweeps["batch_size"]["lines"][0]
    assert line["name"] == "modality=visual"
    for spread, size in zip(line["spreads"], (4, 8), strict=True):
        same = found[f"batch_size={size},modality=visual"].accuracy_percent
        assert (spread["mean"], spread["std"]) == pytest.approx((same.mean, same.std))


def test_runs_that_differ_in_one_setting_are_charted_and_heads_are_not(made: Made, tmp_path: Path) -> None:
    for name, lr in (("fast", 1e-2), ("slow", 1e-4)):
        train_head(made.cache, tmp_path / name, head="mlp", lr=lr, epochs=1, device="cpu")
    report([tmp_path / "fast", tmp_path / "slow"], tmp_path / "page", tsne=False)
    (chart,) = data(tmp_path / "page", "summary")["sweeps"]
    assert (chart["setting"], chart["run"], chart["values"]) == ("lr", "", ["0.0001", "0.01"])
    report(made.runs, tmp_path / "heads", tsne=False)
    assert data(tmp_path / "heads", "summary")["sweeps"] == []


def test_the_predictions_of_a_run_are_read_once(made: Made, tmp_path: Path, monkeypatch: Any) -> None:
    read: list[Path] = []

    def counted(run: Run) -> Any:
        read.append(run.path)
        return read_predictions(run)

    for module in ("avel.views.reading", "avel.heads.evaluation.evaluate"):
        monkeypatch.setattr(import_module(module), "read_predictions", counted)
    report(made.runs, tmp_path / "page", tsne=False)
    assert sorted(read) == sorted(made.runs)


def test_details_are_the_trials_own(made: Made, tmp_path: Path) -> None:
    report(made.runs, tmp_path / "page", tsne=False)
    clips, detail = data(tmp_path / "page", "clips"), data(tmp_path / "page", "detail-0")
    run = read_run(made.runs[1])
    for clip, number in enumerate(clips["sample"]):
        place = int(np.flatnonzero(run.number == number)[0])
        for trial in range(2):
            top = detail[clip][1][trial]["top"]
            (predicted,) = clips["predictions"][1][trial][clip]  # one track
            background = len(CATEGORIES)
            assert [pairs[0][0] for pairs in top] == [each[0] if each else background for each in predicted]
            percent = 100 * run.probability[trial, place].max(1)
            assert [pairs[0][1] for pairs in top] == np.rint(percent).astype(int).tolist()
    assert detail[0][0][0]["maps"] == []
    assert [each[:3] for each in detail[0][1][0]["maps"]] == [
        ["W_av", "audio", "visual"],
        ["W_va", "visual", "audio"],
    ]


def test_a_page_on_many_clips_stays_small(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(made.runs, tmp_path / "whole", tsne=False)
    whole = data(tmp_path / "whole", "clips")
    assert not [note for note in data(tmp_path / "whole", "summary")["left_out"] if "pictures" in note]
    limits = {"DETAIL_CLIPS": 1, "DETAIL_FILES": 3, "BROWSED_SEGMENTS": 2 * 8 * T, "PICTURED_VIDEOS": 2}
    for name, value in limits.items():
        monkeypatch.setattr(f"avel.views.report.clips.{name}", value)
    report(made.runs, tmp_path / "page", tsne=False)
    clips, summary = data(tmp_path / "page", "clips"), data(tmp_path / "page", "summary")
    assert summary["detail_clips"] == 3
    files = sorted(path.name for path in (tmp_path / "page" / "data").iterdir())
    assert files == ["clips.js", "detail-0.js", "detail-1.js", "detail-2.js", "summary.js"]
    detail = [clip for number in range(3) for clip in data(tmp_path / "page", f"detail-{number}")]
    assert len(detail) == len(clips["sample"]) == 8
    assert [len(run) for run in clips["predictions"]] == [1, 1]
    assert clips["predictions"] == [run[:1] for run in whole["predictions"]]

    score = np.array(whole["scores"][1][0])
    lowest = [
        min(score[place] for place, at in enumerate(whole["video"]) if at == video) for video in range(4)
    ]
    pictured = {number for number, media in enumerate(clips["media"]) if media}
    assert len(pictured) == 2
    assert max(lowest[video] for video in pictured) <= min(lowest[each] for each in {*range(4)} - pictured)
    assert len(list((tmp_path / "page" / "media").iterdir())) == 2 * len(pictured)
    full = [data(tmp_path / "whole", "detail-0")[clip][1][0] for clip in range(8)]
    for clip, video in enumerate(clips["video"]):
        (shown,) = detail[clip][1]
        assert shown == (full[clip] if video in pictured else full[clip] | {"maps": []})
    assert [
        note for note in summary["left_out"] if note.startswith("pictures and attention maps are of 2 of 4")
    ]
    assert "the clip browser shows the first 1 trial of each run" in summary["left_out"]


def test_attention_is_the_heads_own(made: Made) -> None:
    run = read_run(made.runs[1])
    inside = look_inside(run, 1, np.array([3]))
    model = load_model(run.run, read_trial(run.run, "seed=1"))
    with h5py.File(made.cache) as file:
        ids = list(file["video_ids"].asstr()[()])
        video = ids.index(run.video_id[3])
        f_a, f_v = (torch.from_numpy(file[name][video])[None] for name in ("f_a", "f_v"))
    assert model.standard_a is not None
    assert model.standard_v is not None
    W_av, W_va = model.head.attention(model.standard_a(f_a), model.standard_v(f_v))
    maps = {each.name: values for each, values in inside.attention.items()}
    np.testing.assert_allclose(maps["W_av"], W_av.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(maps["W_va"], W_va.detach().numpy(), atol=1e-6)
    scores = model.head.mlp(torch.from_numpy(inside.fused)).softmax(-1).detach().numpy()
    np.testing.assert_allclose(scores[0], run.probability[1, 3], atol=1e-5)


def contents(folder: Path) -> set[str]:
    """Relative paths of all that lies below a folder, folders too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_report_replaces_a_report(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "page"
    report(made.runs, out, tsne=False, copy_videos=True)
    assert (out / "videos").is_dir()
    report(made.runs[:1], out, tsne=False)
    report(made.runs[:1], tmp_path / "fresh", tsne=False)
    assert contents(out) == contents(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"page", "fresh"}
    assert len(data(out, "summary")["runs"]) == 1


@pytest.mark.parametrize("name", ["thesis.tex", "data/notes.txt", "mine/a/b.txt", ".hidden", "empty/"])
@pytest.mark.parametrize("older", [True, False])
def test_a_folder_with_a_file_of_the_users_is_refused_before_any_work(
    made: Made, tmp_path: Path, name: str, older: bool
) -> None:
    out = tmp_path / "page"
    if older:
        report(made.runs[:1], out, tsne=False)
    mine = out / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.mkdir() if name.endswith("/") else mine.write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"page/{name.strip('/')}: was not written by avel report"):
        report([tmp_path / "no run"], out, tsne=False)
    assert contents(tmp_path) == before


def test_a_link_of_the_users_is_neither_followed_nor_removed(made: Made, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "page", tmp_path / "elsewhere"
    report(made.runs[:1], out, tsne=False)
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").touch()
    (out / "link").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="link: was not written by avel report"):
        report(made.runs[:1], out, tsne=False)
    assert (out / "link" / "thesis.tex").exists()


def test_a_list_that_names_files_elsewhere_reaches_none_of_them(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "page"
    report(made.runs[:1], out, tsne=False)
    (tmp_path / "thesis.tex").touch()
    listed = json.loads((out / LIST).read_text())
    (out / LIST).write_text(json.dumps({"files": [*listed["files"], "../thesis.tex"]}))
    report(made.runs[:1], out, tsne=False)
    assert (tmp_path / "thesis.tex").exists()
    (out / LIST).write_text("[]")
    with pytest.raises(ConfigError, match="is not a list of a report's files"):
        report(made.runs[:1], out, tsne=False)


def test_a_report_in_the_working_folder(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    monkeypatch.chdir(tmp_path / "page")
    for _ in range(2):
        assert report(made.runs[:1], ".", tsne=False).index == "index.html"
    assert Path("index.html").is_file()


@pytest.mark.parametrize("steps", range(0, 30, 3))
def test_a_report_cut_short_may_be_replaced(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    out = tmp_path / "page"
    report(made.runs, out, tsne=False, copy_videos=True)
    made_anew = tmp_path / "new"
    report(made.runs[:1], made_anew, tsne=False)
    whole = contents(made_anew)
    replace, done = os.replace, []

    def cut_short(source: Path, target: Path) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut_short)
    with contextlib.suppress(KeyboardInterrupt):
        put_in_place(made_anew, out, own_files(out))
    monkeypatch.undo()
    unlisted = {path for path in contents(out) if (out / path).is_file()} - own_files(out)
    assert not unlisted
    report(made.runs[:1], out, tsne=False)
    assert contents(out) == whole


def test_a_panel_that_cannot_be_drawn_is_left_out_and_named(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    cache, run = tmp_path / "features.h5", tmp_path / "run"
    write_cache(cache, ("a", "b", "c", "d"), 12, {}, silent=True)
    train_head(cache, run, head="mlp", epochs=1, batch_size=4, device="cpu")
    made_page = report([run], tmp_path / "page")
    (cloud,) = data(tmp_path / "page", "summary")["clouds"]
    assert [panel["title"] for panel in cloud["panels"]] == ["visual, f_v", "fused, run"]
    reason = "t-SNE of audio, f_a is left out: 1 distinct vector among its 16, and t-SNE needs 4"
    assert reason in made_page.left_out
    assert reason in data(tmp_path / "page", "summary")["left_out"]
    with pytest.raises(StoreError, match="no t-SNE of audio, f_a on test: 1 distinct vector among its 16"):
        plot(run, "tsne", tmp_path / "tsne.png")
    assert not (tmp_path / "tsne.png").exists()


POINTS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        (np.zeros_like(POINTS), "1 distinct vector among its 200"),
        (np.full_like(POINTS, 0.1), "1 distinct vector among its 200"),
        (1 + 1e-7 * POINTS, "1 distinct vector among its 200"),
        (POINTS[:1], "1 distinct vector among its 1, and"),
        (POINTS[np.arange(200) % 3], "3 distinct vectors among its 200, and t-SNE needs 4"),
        (np.concatenate([POINTS, np.full((1, 8), 1e30)]), "2 distinct vectors among its 201"),
        (np.where(POINTS > 2.9, np.nan, POINTS), " vectors hold NaN or infinity"),
        (np.where(POINTS > 2.9, np.inf, POINTS), " vectors hold NaN or infinity"),
        (POINTS[:, :1], "its vectors hold one number each"),
    ],
    ids=[
        "zero",
        "constant",
        "rounding",
        "one point",
        "three points",
        "one far away",
        "nan",
        "infinity",
        "one number",
    ],
)
def test_what_tsne_cannot_embed_is_said(vectors: np.ndarray, why: str) -> None:
    assert why in obstacle(vectors.astype(np.float32))


@pytest.mark.parametrize(
    "vectors",
    [
        POINTS * 1e-30,
        POINTS * 1e37,
        POINTS[np.arange(200) % 4],
        POINTS[:4],
        np.where(np.arange(8) < 7, 0, POINTS),
    ],
    ids=["tiny", "huge", "four points in 200", "four points", "one feature that varies"],
)
def test_tsne_embeds_what_only_looks_degenerate(vectors: np.ndarray) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    assert obstacle(vectors.astype(np.float32)) == ""
    points = tsne(vectors.astype(np.float32))
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("changed", [{"events": 2}, {"segments": 5}])
def test_runs_of_other_classes_or_segments_have_no_page_in_common(
    tmp_path: Path, changed: dict[str, int]
) -> None:
    """Also where no sample of one is among those of the other."""
    sizes = {"a": 60, "b": 200}
    for name, change in (("a", {}), ("b", changed)):
        cache = synthetic.write_cache(tmp_path / f"{name}.h5", samples=sizes[name], **change)
        train_head(cache, tmp_path / name, head="mlp", epochs=1, device="cpu")
    with pytest.raises(StaleError, match="do not fit one report: other classes, segments or task"):
        report([tmp_path / "a", tmp_path / "b"], tmp_path / "page", tsne=False)


def test_a_failed_report_leaves_nothing(made: Made, tmp_path: Path) -> None:
    cache = tmp_path / "features.h5"
    write_cache(cache, ("a", "b", "c", "d"), 12, {})
    others = write_runs(cache, tmp_path / "runs")
    with pytest.raises(StaleError, match="do not fit one report"):
        report([made.runs[0], others[0]], tmp_path / "page", tsne=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.h5", "runs"]


def test_a_run_that_learned_from_labels_of_whole_videos_alone_has_a_page(tmp_path: Path) -> None:
    label, category = np.full((36, T), 4), np.arange(36) % 4
    label[:, 1:3] = category[:, None]
    classes = ClassTable(np.ones(36, bool), np.arange(36), category)
    splits = ["train"] * 20 + ["val"] * 8 + ["test"] * 8
    samples = cached_samples(label, 4, known=np.zeros(36, bool), split=splits, classes=classes)
    arrays = {name: np.random.default_rng(0).normal(size=(36, T, 8)) for name in ("f_a", "f_v")}
    ids = tuple(map(str, range(36)))
    cache = tmp_path / "c.h5"
    write_features(cache, video_ids=ids, categories=CATEGORIES, samples=samples, arrays=arrays)
    settings = {"supervision": "weak", "select_by": "videos", "device": "cpu"}
    train_head(cache, tmp_path / "run", head="mlp", epochs=1, **settings)
    made_page = report([tmp_path / "run"], tmp_path / "page")
    assert made_page.clips == 16
    assert "t-SNE is left out: no sample has known events" in made_page.left_out
    with pytest.raises(StoreError, match=r"no sample of split 'test' has known events\n.*annotate"):
        plot(tmp_path / "run", "confusion", tmp_path / "x.png")


def test_a_report_without_a_store_says_what_is_left_out(tmp_path: Path) -> None:
    cache = tmp_path / "features.h5"
    write_cache(cache, ("a", "b", "c", "d"), 12, {})
    made_page = report(write_runs(cache, tmp_path / "runs"), tmp_path / "page", tsne=False)
    assert any("clip store" in note for note in made_page.left_out)
    assert data(tmp_path / "page", "clips")["media"] == [0, 0, 0, 0]


def test_a_damaged_clip_has_no_pictures_and_a_note_says_so(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(made.store, tmp_path / "clips.zarr")
    patches = min(path for path in (store / "log_mel" / "c").rglob("*") if path.is_file())
    patches.write_bytes(patches.read_bytes()[:-1])
    report(made.runs[:1], tmp_path / "page", store=store, tsne=False)
    assert sorted(data(tmp_path / "page", "clips")["media"]).count(0) == 1
    noted = re.search(
        r"pictures of (.*) are left out: .*log_mel is damaged.*--repair", capsys.readouterr().err
    )
    assert noted, "which clip, and the command that fixes it"
    assert noted[1] in IDS


def test_a_note_on_a_clip_ends_with_the_error_where_that_has_no_next_step(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beyond = Footage(ClipStore.open(made.store), 99)
    assert not write_pictures(beyond, IDS[0], tmp_path, 1)
    assert re.search(r"are left out: .*no frame \d+, the last is \d+$", capsys.readouterr().err.strip())


def test_runs_of_one_name_are_told_apart(made: Made, tmp_path: Path) -> None:
    write_runs(made.cache, tmp_path / "second")
    names = report([made.runs[0], tmp_path / "second" / "mlp"], tmp_path / "page", tsne=False).runs
    assert names == (f"{made.folder.name}/mlp", "second/mlp")
    with pytest.raises(ConfigError, match="given twice"):
        report([made.runs[0], made.runs[0]], tmp_path / "page")


def test_tsne_shares_the_cached_panels(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    report(made.runs, tmp_path / "page")
    (cloud,) = data(tmp_path / "page", "summary")["clouds"]
    titles = [panel["title"] for panel in cloud["panels"]]
    assert titles == ["audio, f_a", "visual, f_v", "fused, mlp", "fused, tacma"]
    assert len(cloud["clip"]) == len(cloud["panels"][0]["x"]) == 4 * T
    clips = data(tmp_path / "page", "clips")
    for clip, segment, number in zip(cloud["clip"], cloud["segment"], cloud["class"], strict=True):
        assert clips["label"][clip][0][segment] == ([] if number == len(CATEGORIES) else [number])


def test_runs_on_other_samples_of_a_cache_have_tsne_of_their_own(made: Made, tmp_path: Path) -> None:
    options: dict[str, Any] = {"head": "mlp", "epochs": 1, "device": "cpu"}
    cross_validate(made.cache, tmp_path / "cv", {}, folds=3, seeds=1, **options)
    runs = [tmp_path / "cv" / "folds" / number for number in "12"]
    report(runs, tmp_path / "page")
    clouds, clips = data(tmp_path / "page", "summary")["clouds"], data(tmp_path / "page", "clips")
    for run, cloud in zip(runs, clouds, strict=True):
        held = set(read_predictions(Run.open(run))["test"][0].number.tolist())
        assert {clips["sample"][clip] for clip in cloud["clip"]} == held
        assert {len(panel["x"]) for panel in cloud["panels"]} == {len(cloud["clip"])}


def test_spectrogram_has_low_bands_at_the_bottom_and_time_to_the_right() -> None:
    log_mel = np.full((2, 96, 64), -4.0, np.float32)
    log_mel[1, :, :8] = 2.0
    pixels = np.asarray(spectrogram(log_mel)).astype(int).sum(-1)
    assert pixels.shape == (128, 192)
    assert pixels[112:, 96:].min() > pixels[:112].max()
    assert pixels[112:, 96:].min() > pixels[:, :96].max()


def test_strip_keeps_the_order_of_segments() -> None:
    frames = np.zeros((3, 48, 48, 3), np.uint8)
    frames[1] = 100
    frames[2] = 200
    shown = np.asarray(strip(frames))
    assert [int(shown[10, 48 + 96 * number, 0]) for number in range(3)] == [0, 100, 200]
