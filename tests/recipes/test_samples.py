"""Composed clips with two events, with none, and unlabelled ones: from a CSV to a report."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from avel.config import resolve
from avel.errors import TrainingError
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.saved import save_encoder
from avel.pipeline.staging.extract import extract
from avel.recipes.composing.compose import record
from avel.recipes.composing.script import Script
from avel.recipes.negatives import background_cache
from avel.recipes.predicting.predict import predict
from avel.stores.export import export_features
from avel.stores.features import FeatureCache
from avel.stores.inspection import inspect
from avel.views.plots.plot import plot
from avel.views.report.page import report

T = 4
SECONDS = {"bell": "#--#", "twice": "##-#", "none": "----"}
"""Kind of clip -> the seconds in which its class is seen and heard."""
CLIPS = {
    **{f"-{kind}{number}": (kind, "train") for kind in SECONDS for number in range(2)},
    **{f"{kind}-val": (kind, "val") for kind in SECONDS},
    **{f"{kind}-test": (kind, "test") for kind in SECONDS},
    "nobody-knows": ("bell", "test"),
}
BELL, HELICOPTER = "Church bell", "Helicopter"
ROWS = {
    "bell": [(BELL, 0, 1.2), (BELL, 2.6, 4)],
    "twice": [(HELICOPTER, 0, 2), (HELICOPTER, 3.25, 4)],
    "none": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips and a table of their events; staged, cached, a head trained on them."""
    root = tmp_path_factory.mktemp("samples")
    lines = ["file,class,onset,offset,split"]
    for take, (name, (kind, split)) in enumerate(CLIPS.items()):
        subject = HELICOPTER if kind == "twice" else BELL
        shown = tuple((subject,) if second == "#" else () for second in SECONDS[kind])
        (root / "clips").mkdir(exist_ok=True)
        script = Script(name, subject, shown, shown, "train")
        record(root / "clips" / f"{name}.mp4", script, 0, take)
        if name == "nobody-knows":
            lines.append(f"{name},?,,,{split}")
        else:
            lines += [f"{name},{event},{on},{off},{split}" for event, on, off in ROWS[kind]]
            lines += [] if ROWS[kind] else [f"{name},,,,{split}"]
    (root / "events.csv").write_text("\n".join(lines) + "\n")
    options = {"segments": T, "size": 64, "workers": 1}
    extract(root / "clips", root / "s.zarr", annotations=root / "events.csv", **options)
    tiny: dict[str, object] = {"visual_backbone": "tiny", "audio_backbone": "tiny"}
    tiny |= {"visual_weights": "random", "audio_weights": "random"}
    (root / "avbt").mkdir()
    encoder = build_encoder(resolve(PretrainConfig, "pretrain", options=tiny | {"crop_size": 42}))
    save_encoder(encoder, root / "avbt" / "encoder.safetensors")
    cache_features(root / "s.zarr", root / "c.h5", encoder=root / "avbt", device="cpu")
    train_head(root / "c.h5", root / "run", head="mlp", epochs=5, device="cpu")
    return root


def test_the_cache_holds_samples_and_their_events(folder: Path) -> None:
    cache = FeatureCache.open(folder / "c.h5")
    assert len(cache.samples) == len(CLIPS)
    names = [cache.video_ids[video] for video in cache.samples.video]
    labels = dict(zip(names, cache.labels().tolist(), strict=True))
    assert labels["-bell0"] == [0, 2, 2, 0]
    assert labels["twice-test"] == [1, 1, 2, 1]
    assert labels["none-val"] == [2, 2, 2, 2]
    assert labels["nobody-knows"] == [-1] * T
    assert inspect(folder / "c.h5", verify=True).facts["unknown_samples"] == 1
    assert inspect(folder / "s.zarr").facts["samples"] == len(CLIPS)


def test_the_run_evaluates_what_is_labelled(folder: Path) -> None:
    results = json.loads((folder / "run" / "results.json").read_text())
    assert (results["samples"], results["unknown_samples"]) == (3, 1)
    assert results["trivial_baselines_percent"]["always background"] == pytest.approx(100 * 7 / 12)
    lines = pq.read_table(folder / "run" / "predictions.parquet").to_pylist()
    label_of = {(line["video_id"], line["segment"]): line["label"] for line in lines}
    assert [label_of["twice-test", segment] for segment in range(T)] == [1, 1, 2, 1]
    assert [label_of["nobody-knows", segment] for segment in range(T)] == [None] * T


def test_all_of_it_is_exported_drawn_and_reported(folder: Path, tmp_path: Path) -> None:
    export_features(folder / "c.h5", tmp_path / "out")
    with h5py.File(tmp_path / "out" / "labels_closs.h5") as file:
        assert file["avadataset"][:2].tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]
    for video in ("twice-test", "none-test", "nobody-knows"):
        plot(folder / "run", "timeline", tmp_path / f"{video}.png", video=video)
    plot(folder / "run", "confusion", tmp_path / "confusion.png")
    made = report([folder / "run"], tmp_path / "page")
    assert made.clips == 7
    text = (tmp_path / "page" / "data" / "clips.js").read_text()
    clips = json.loads(text[text.index(", ") + 2 :].removesuffix(");\n"))
    shown = {
        clips["video_id"][video]: (title, label)
        for video, title, label in zip(clips["video"], clips["title"], clips["label"], strict=True)
    }
    assert shown["twice-test"] == (HELICOPTER, [[[1], [1], [], [1]]])
    assert shown["none-val"] == ("no event", [[[]] * 4])
    assert shown["nobody-knows"] == ("events unknown", None)


def test_its_head_predicts_a_video(folder: Path) -> None:
    (found,) = predict(folder / "run", [folder / "clips" / "twice-test.mp4"], device="cpu").found
    assert len(found.segments) == T


def test_a_folder_of_videos_without_events_becomes_features_like_these(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    for source, name in (("none-val", "silence"), ("-bell0", "-bell0")):
        shutil.copy(folder / "clips" / f"{source}.mp4", tmp_path / "quiet" / f"{name}.mp4")
    made = FeatureCache.open(background_cache(tmp_path / "quiet", folder / "c.h5"))
    own = FeatureCache.open(folder / "c.h5")
    assert set(made.video_ids) == {"silence", "-bell0"}
    for one, other in (("silence", "none-val"), ("-bell0", "-bell0")):
        found = made.f_v[made.video_ids.index(one)]
        np.testing.assert_allclose(found, own.f_v[own.video_ids.index(other)], atol=1e-5)
    with pytest.raises(TrainingError, match=r"video '-bell0' is in .* too"):
        train_head(folder / "c.h5", tmp_path / "run", head="mlp", negatives=str(made.path), device="cpu")
