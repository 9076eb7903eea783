"""LLP's layout with composed clips: from media and lists to a judged head, predictions and pictures."""

import json
from pathlib import Path

import pytest

from avel.cli import cli
from avel.config import resolve
from avel.console import DONE, run
from avel.heads.evaluation.compare import compare
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.kept import save_encoder
from avel.recipes.composing.compose import record
from avel.recipes.composing.script import Script
from avel.stores.features import FeatureCache
from avel.views.plots.plot import plot

T = 4
BELL, HELICOPTER = "Church bell", "Helicopter"
HEARD = {"one": "##--", "two": "-##-", "same": "###-"}
SEEN = {"one": "-##-", "two": "####", "same": "###-"}
"""Kind of clip -> the seconds in which something is heard, and those in which another thing is seen."""
CLIPS = {
    "AAAAAAAAAA0_10_20": ("one", "train"),
    "AAAAAAAAAA1_10_20": ("two", "train"),
    "AAAAAAAAAA2_0_10": ("same", "train"),
    "-AAAAAAAAA3_0_10": ("one", "val"),
    "AAAAAAAAAA4_5_15": ("two", "val"),
    "_AAAAAAAAA5_5_15": ("one", "test"),
    "AAAAAAAAAA6_5_15": ("two", "test"),
}
SUBJECTS = {"one": (BELL, HELICOPTER), "two": (HELICOPTER, BELL), "same": (BELL, BELL)}
"""Kind -> what is heard, what is seen."""
NAMES = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}


def span(marks: str) -> tuple[int, int]:
    return marks.index("#"), marks.rindex("#") + 1


def write_dataset(root: Path) -> Path:
    """The authors' layout, with a video for each clip."""
    media = root / "data" / "LLP_dataset" / "video"
    media.mkdir(parents=True)
    lists = {split: ["filename\tevent_labels"] for split in NAMES}
    tables = {kind: ["filename\tonset\toffset\tevent_labels"] for kind in ("audio", "visual")}
    for take, (name, (kind, split)) in enumerate(CLIPS.items()):
        heard, seen = SUBJECTS[kind]
        visible = tuple((seen,) if mark == "#" else () for mark in SEEN[kind])
        audible = tuple((heard,) if mark == "#" else () for mark in HEARD[kind])
        record(media / f"{name[:11]}.mp4", Script(name, seen, visible, audible, split), 0, take)
        lists[split].append(f"{name}\t{','.join(dict.fromkeys((heard, seen)))}")
        if split != "train":
            for table, marks, subject in (("audio", HEARD, heard), ("visual", SEEN, seen)):
                onset, offset = span(marks[kind])
                tables[table].append(f"{name}\t{onset}\t{offset}\t{subject}")
    for split, lines in lists.items():
        (root / "data" / NAMES[split]).write_text("\n".join(lines) + "\n")
    for kind, lines in tables.items():
        (root / "data" / f"AVVP_eval_{kind}.csv").write_text("\n".join(lines) + "\n")
    return root


def test_from_media_to_a_judged_head(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "llp")
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
    assert opened.samples.classes.known.tolist() == [True] * 3 + [False] * 4
    assert opened.samples.events.modality.tolist() == [1, 2] * 4
    weak = ["--supervision", "weak", "--device", "cpu", "--set", "epochs=2"]
    assert run(cli, ["train-head", cache, here, "--head", "han", *weak]) == DONE
    assert run(cli, ["train-head", cache, str(tmp_path / "runs/mlp"), "--head", "mlp", *weak]) == DONE
    capfd.readouterr()
    assert run(cli, ["evaluate", here, "--json"]) == DONE
    found = json.loads(capfd.readouterr().out)
    assert (found["task"], found["samples"]) == ("multi_label", 2)
    # what is heard is never seen: without any event, of three types audio-visual alone is right
    assert found["trivial_baselines_percent"]["never any event"] == pytest.approx(100 / 3)
    assert set(compare(here, tmp_path / "runs" / "mlp").differences) == {"segment_f1", "event_f1"}
    video = tmp_path / "llp" / "data" / "LLP_dataset" / "video" / "AAAAAAAAAA6.mp4"
    words = ["predict", here, str(video), "--out", str(tmp_path / "e.json"), "--device", "cpu"]
    assert run(cli, [*words, "--preview", str(tmp_path / "e.png")]) == DONE
    (predicted,) = json.loads((tmp_path / "e.json").read_text())
    assert len(predicted["segments"]) == T
    assert {event["track"] for event in predicted["events"]} <= {"audio", "visual"}
    plot(here, "timeline", tmp_path / "t.png", video="AAAAAAAAAA6_5_15")
    assert run(cli, ["report", here, "--out", str(tmp_path / "page"), "--no-tsne"]) == DONE
    assert run(cli, ["plot", here, "confusion", "--out", str(tmp_path / "c.png")]) != DONE
    assert "may have several labels, which cannot be confused" in capfd.readouterr().err
