"""LLP's layout with composed clips: from media and lists to an evaluated head, predictions and pictures."""

import json
from pathlib import Path

import pytest

from avel.cli import cli
from avel.config import resolve
from avel.console import DONE, run
from avel.heads.evaluation.compare import compare
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.saved import save_encoder
from avel.recipes.composing.compose import CLASSES
from avel.stores.datasets.formats import read_dataset
from avel.stores.features import FeatureCache
from avel.views.plots.plot import plot
from tests.layouts import scripts_of, write_layout

T = 4


def test_from_media_to_an_evaluated_head(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_layout(tmp_path / "llp", "llp", scripts_of("llp", 9, CLASSES[:3], T), recorded=True)
    store, cache, here = (str(tmp_path / name) for name in ("s.zarr", "c.h5", "runs/han"))
    words = ["extract", str(tmp_path / "llp"), store, "--segments", str(T), "--size", "64", "--workers", "1"]
    assert run(cli, words) == DONE
    tiny: dict[str, object] = {"visual_backbone": "tiny", "audio_backbone": "tiny", "crop_size": 42}
    tiny |= {"visual_weights": "random", "audio_weights": "random"}
    (tmp_path / "avbt").mkdir()
    encoder = build_encoder(resolve(PretrainConfig, "pretrain", options=tiny))
    save_encoder(encoder, tmp_path / "avbt" / "encoder.safetensors")
    words = ["cache-features", store, cache, "--encoder", str(tmp_path / "avbt"), "--device", "cpu"]
    assert run(cli, words) == DONE
    opened = FeatureCache.open(cache)
    assert opened.samples.classes.known.tolist() == (opened.samples.split == "train").tolist()
    assert set(opened.samples.events.modality.tolist()) == {1, 2}
    weak = ["--supervision", "weak", "--device", "cpu", "--set", "epochs=2"]
    assert run(cli, ["train-head", cache, here, "--head", "han", *weak]) == DONE
    assert run(cli, ["train-head", cache, str(tmp_path / "runs/mlp"), "--head", "mlp", *weak]) == DONE
    capfd.readouterr()
    assert run(cli, ["evaluate", here, "--json"]) == DONE
    found = json.loads(capfd.readouterr().out)
    assert (found["task"], found["samples"]) == ("multi_label", 3)
    assert set(compare(here, tmp_path / "runs" / "mlp").differences) == {"segment_f1", "event_f1"}
    dataset = read_dataset(tmp_path / "llp")
    paths = {video.video_id: video.path for video in dataset.videos}
    tested = [sample.video_id for sample in dataset.samples if sample.split == "test"]
    words = ["predict", here, paths[tested[0]], "--out", str(tmp_path / "e.json"), "--device", "cpu"]
    assert run(cli, [*words, "--preview", str(tmp_path / "e.png")]) == DONE
    (predicted,) = json.loads((tmp_path / "e.json").read_text())
    assert len(predicted["segments"]) == T
    assert {event["track"] for event in predicted["events"]} <= {"audio", "visual"}
    words = ["predict", here, *(paths[name] for name in tested), "--out", str(tmp_path / "e.csv")]
    assert run(cli, [*words, "--device", "cpu"]) == DONE
    capfd.readouterr()  # a file is named by the video, LLP's clip by the video and two seconds
    names = ["--dataset", str(tmp_path / "llp"), "--segments", str(T), "--json"]
    assert run(cli, ["score", str(tmp_path / "e.csv"), *names]) == DONE
    scored = json.loads(capfd.readouterr().out)
    assert scored["parsing"] == found["groups"]["han"]["parsing"]
    plot(here, "timeline", tmp_path / "t.png", video=tested[0])
    assert run(cli, ["report", here, "--out", str(tmp_path / "page"), "--no-tsne"]) == DONE
    assert run(cli, ["plot", here, "confusion", "--out", str(tmp_path / "c.png")]) != DONE
    assert "may have several labels, so there is no confusion matrix" in capfd.readouterr().err
