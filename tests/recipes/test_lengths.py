"""Clips of differing lengths from media to report: annotations, store, features, head, page, prediction."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.score import score
from avel.heads.models.tacma import TACMA
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.staging.extract import extract
from avel.recipes.predicting.predict import predict
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from avel.views.embedding import embed
from avel.views.footage import Footage
from avel.views.inside import look_inside
from avel.views.plots.plot import choose_clip, clip_of
from avel.views.reading import read_run
from avel.views.report.page import report
from tests.views.made import video

SECONDS = {"a": 2, "b": 4, "c": 3, "d": 2, "e": 4, "f": 3, "g": 1, "h": 2}
SPLITS = ("training", "training", "training", "training", "validation", "validation", "testing", "testing")
"""Of the clips that are tested both are shorter than the longest."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    (folder / "media").mkdir()
    database = {}
    for number, (name, seconds) in enumerate(SECONDS.items()):
        video(folder / "media" / f"{name}.mp4", seconds, 60 * number % 256)
        annotations = [{"segment": [0.0, seconds / 2], "label": "bell"}]
        database[name] = {"subset": SPLITS[number], "duration": seconds, "annotations": annotations}
    (folder / "media" / "annotations.json").write_text(json.dumps({"database": database}))
    extract(folder / "media", folder / "clips.zarr", size=32, fps=4, workers=1)
    tiny = {"visual_backbone": "tiny", "audio_backbone": "tiny", "crop_size": 28}
    random = {"visual_weights": "random", "audio_weights": "random", "untrained": True}
    cache_features(folder / "clips.zarr", folder / "features.h5", **tiny, **random)
    train_head(folder / "features.h5", folder / "run", head="tacma", epochs=2, batch_size=2)
    return folder / "run"


def test_the_grid_is_that_of_the_longest_clip(run: Path) -> None:
    store, cache = ClipStore.open(run.parent / "clips.zarr"), FeatureCache.open(run.parent / "features.h5")
    assert store.grid.segments == cache.grid_segments == 4
    assert store.lengths == SECONDS == dict(zip(cache.video_ids, cache.lengths.tolist(), strict=True))


def test_no_segments_are_shown_that_a_shorter_cache_lacks(run: Path) -> None:
    shown = Footage(ClipStore.open(run.parent / "clips.zarr"), 3)
    assert [shown.frames(name).shape[0] for name in ("a", "b")] == [2, 3]  # type: ignore[union-attr]


def test_a_video_is_predicted_at_its_own_length_as_it_was_in_the_cache(run: Path) -> None:
    names = ("g", "h", "e")
    found = predict(run, [run.parent / "media" / f"{name}.mp4" for name in names]).found
    made = read_run(run)
    for name, each in zip(names, found, strict=True):
        assert len(each.segments) == SECONDS[name]
        place = made.place_of(name)
        cached = made.probability[0, place, : SECONDS[name]].max(1)
        np.testing.assert_allclose([probability for _, probability in each.segments], cached, atol=2e-3)
        assert all(event.end_seconds <= SECONDS[name] for event in each.events)


def test_predictions_of_others_are_scored_up_to_the_ends(run: Path) -> None:
    own = score(run / "predictions.parquet", run.parent / "media")
    assert own.accuracy_percent == evaluate(run).groups["tacma"].accuracy_percent
    events = run.parent / "events.csv"
    events.write_text("video,onset,offset,label\ng,0,9,bell\nh,0,1,bell\n")  # g holds the event by half: all
    assert score(events, run.parent / "media").accuracy_percent.mean == 100


def test_pictures_and_page_end_where_a_clip_does(run: Path, tmp_path: Path) -> None:
    made = read_run(run)
    assert made.video_id[choose_clip(made, "test")] in ("g", "h")
    clip = clip_of({"tacma": made}, int(made.number[made.place_of("h")]))
    assert clip.segments == 2 == len(clip.frames) == len(clip.log_mel)  # type: ignore[arg-type]
    assert all(bar.blocks[-1].end == 2 for bar in clip.bars)
    drawn = embed(made, "val")
    assert len(drawn.segment) == SECONDS["e"] + SECONDS["f"]
    attention = look_inside(made, 0, np.array([made.place_of("h")])).attention
    weights = attention[TACMA.attention_maps[0]][0]
    assert not weights[:2, 2:].any()
    report([run], tmp_path / "page", tsne=False)
    text = (tmp_path / "page" / "data" / "clips.js").read_text()
    clips = json.loads(text[text.index(",") + 1 : text.rindex(")")])
    lengths = [SECONDS[clips["video_id"][number]] for number in clips["video"]]
    assert clips["length"] == lengths
    assert [len(label[0]) for label in clips["label"]] == lengths
    assert [len(found[0]) for found in clips["predictions"][0][0]] == lengths
    for number, name in zip(clips["media"], clips["video_id"], strict=True):
        with Image.open(tmp_path / "page" / "media" / f"{number}-frames.jpg") as strip:
            assert strip.width == SECONDS[name] * strip.height
    detail = (tmp_path / "page" / "data" / "detail-0.js").read_text()
    for length, (trials,) in zip(
        lengths, json.loads(detail[detail.index(",") + 1 : detail.rindex(")")]), strict=True
    ):
        assert len(trials[0]["top"]) == length
        assert [(name, np.shape(values)) for name, _, _, values in trials[0]["maps"]] == [
            ("W_av", (length, length)),
            ("W_va", (length, length)),
        ]
