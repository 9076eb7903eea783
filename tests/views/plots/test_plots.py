"""`avel plot`: every kind in every format, what the numbers in it are, and what it refuses."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.heads.tasks.results import Spread
from avel.heads.tasks.task import Block
from avel.heads.train import sweep
from avel.stores.runs import Run
from avel.views.plots.charts import draw_confusion, draw_sweep
from avel.views.plots.plot import clip_of, demo_picture, most_frequent, plot
from avel.views.plots.style import figure, save
from avel.views.plots.timeline import Bar, Clip, draw_clip
from avel.views.reading import read_run
from avel.views.series import Sweep, SweepLine, curves_of
from tests.views.made import CATEGORIES, HOSTILE, Made

BEGINNING = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("ending", BEGINNING)
@pytest.mark.parametrize("kind", ["confusion", "curves", "timeline"])
def test_each_kind_in_each_format(made: Made, tmp_path: Path, kind: str, ending: str) -> None:
    picture = plot(made.runs[1], kind, tmp_path / f"x{ending}")
    assert Path(picture.out).read_bytes().startswith(BEGINNING[ending])
    assert [path.name for path in tmp_path.iterdir()] == [f"x{ending}"]


def test_the_same_picture_is_the_same_file(made: Made, tmp_path: Path) -> None:
    digests = set()
    for name in ("a.svg", "b.svg"):
        plot(made.runs[0], "confusion", tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_hostile_names_are_text_in_a_vector_picture(made: Made, tmp_path: Path) -> None:
    plot(made.runs[0], "confusion", tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert HOSTILE not in text
    assert "&lt;img src=x" in text


def test_confusion_counts_are_those_of_the_predictions(made: Made) -> None:
    run = read_run(made.runs[0])
    wanted = np.zeros((5, 5), int)
    for line in pq.read_table(made.runs[0] / "predictions.parquet").to_pylist():
        if line["split"] == "test":
            wanted[line["label"], line["prediction"]] += 1
    np.testing.assert_array_equal(run.confusion("test"), wanted)
    right = np.trace(wanted) / wanted.sum()
    assert run.score("test").mean() == pytest.approx(right)


def test_all_names_are_inside_of_a_confusion_picture(tmp_path: Path) -> None:
    names = ["Church bell", "Train horn", "Helicopter", "Clock", "Frog", "Bird song", "background"]
    with figure(5.8, 4.6) as fig:
        draw_confusion(fig, np.full((7, 7), 30), names)
    save(fig, tmp_path / "x.png")
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    assert min(pixels[:, 0].min(), pixels[:, -1].min(), pixels[0].min(), pixels[-1].min()) == 255


def test_long_names_are_inside_of_a_sweep_picture(tmp_path: Path) -> None:
    names = [f"modality={name} cache=4cba068e4af441f3 preset=none" * 2 for name in ("audio", "visual")]
    lines = tuple(SweepLine(name, (0,), ((50.0,),), (Spread.of([50.0]),)) for name in names)
    with figure(4.2, 3.2) as fig:
        draw_sweep(fig, Sweep("head", "head", "Fusion head", "test", "accuracy", ("mlp",), False, lines))
    save(fig, tmp_path / "x.png")
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    assert min(pixels[:, 0].min(), pixels[:, -1].min(), pixels[0].min(), pixels[-1].min()) == 255


def test_timeline_shows_the_labels_and_predictions_of_the_sample(made: Made) -> None:
    run = read_run(made.runs[0])
    clip = clip_of({"mlp": run}, int(run.number[2]))
    lines = pq.read_table(made.runs[0] / "predictions.parquet").to_pylist()
    own = [line for line in lines if line["sample"] == run.number[2] and line["trial"] == "seed=0"]
    own.sort(key=lambda line: line["segment"])
    names = [*CATEGORIES, "bg"]
    shown = [[block.text for block in bar.blocks for _ in range(block.first, block.end)] for bar in clip.bars]
    assert shown[0] == [names[line["label"]] for line in own]
    assert shown[1] == [names[line["prediction"]] for line in own]
    assert clip.frames is not None
    assert clip.frames.shape == (4, 48, 48, 3)
    reds = clip.frames[..., 0].mean((1, 2))
    np.testing.assert_allclose(reds, [0, 40, 80, 120], atol=12)
    assert clip.log_mel is not None
    loud = clip.log_mel.max((1, 2))
    assert min(loud[0], loud[2]) > max(loud[1], loud[3]) + 1  # the tone sounds in even seconds


def test_curves_have_one_line_a_trial_in_percent(made: Made) -> None:
    panels = curves_of(Run.open(made.runs[0]))
    logged = [line for line in Run.open(made.runs[0]).metrics() if line["trial"] == "seed=1"]
    curve = panels["validation accuracy, %"][1]
    assert curve.epoch.tolist() == [1, 2, 3]
    assert curve.value.tolist() == [100 * line["val_score"] for line in logged]


def test_a_sweep_is_drawn_over_the_setting_that_was_swept(made: Made, tmp_path: Path) -> None:
    options = {"head": "tacma", "epochs": 1, "d_h": 8, "device": "cpu"}
    sweep(made.cache, tmp_path / "run", {"theta": [0.03, 0.0], "routing": ["printed", "cross"]}, **options)
    with pytest.raises(
        ConfigError, match=r"several settings were swept: routing, theta\n.*--setting routing"
    ):
        plot(tmp_path / "run", "sweep", tmp_path / "x.svg")
    picture = plot(tmp_path / "run", "sweep", tmp_path / "x.svg", setting="theta")
    assert picture.shows == "accuracy on test at theta 0, 0.03"
    text = (tmp_path / "x.svg").read_text()
    assert "θ: Decay of attention with time difference, Eq. 4" in text
    assert "routing=printed" in text
    plot(tmp_path / "run", "sweep", tmp_path / "x.svg", setting="routing")
    text = (tmp_path / "x.svg").read_text()
    assert "routing: Values that each attention map multiplies" in text
    assert "theta=0.03" in text


def test_tsne_has_three_panels_and_the_same_points_twice(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    for name in ("a.png", "b.png"):
        shown = plot(made.runs[1], "tsne", tmp_path / name).shows
    assert shown == "16 segments of test"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_demo_picture_is_wide(made: Made, tmp_path: Path) -> None:
    runs = {"MLP": made.runs[0], "TACMA": made.runs[1]}
    picture = demo_picture(runs, tmp_path / "demo.png", shown=("MLP", "TACMA"))
    assert "2 runs on test" in picture.shows
    width, height = Image.open(picture.out).size
    assert width > 3 * height


def test_what_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no plot named 'confusoin'"):
        plot(made.runs[0], "confusoin", tmp_path / "x.png")
    with pytest.raises(ConfigError, match="ends in"):
        plot(made.runs[0], "confusion", tmp_path / "x.gif")
    with pytest.raises(StoreError, match="no predictions of split 'train'"):
        plot(made.runs[0], "confusion", tmp_path / "x.png", split="train")
    with pytest.raises(StoreError, match="no setting has two values"):
        plot(made.runs[1], "sweep", tmp_path / "x.png")
    with pytest.raises(StoreError, match="no finished run of a head"):
        plot(tmp_path / "nothing", "sweep", tmp_path / "x.png")
    with pytest.raises(StoreError, match=r"of video 'nobody'\n.*choose a video of test or val"):
        plot(made.runs[1], "timeline", tmp_path / "x.png", video="nobody")
    assert list(tmp_path.iterdir()) == []


def test_classes_in_colour_are_the_frequent_ones_without_background() -> None:
    classes = np.repeat([0, 1, 2, 9], [2, 5, 3, 50])
    assert most_frequent(classes, background=9) == [1, 2, 0]


def test_events_of_the_same_seconds_lie_below_each_other() -> None:
    audio = Block(0, 2, "right", "bark"), Block(1, 3, "wrong", "bell", 1)
    bars = Bar("mlp, audio", audio), Bar("mlp, visual", (Block(0, 4, "background", "bg"),))
    with figure(6, 3) as fig:
        drawn = draw_clip(fig, Clip("clip", 4, 1.0, bars))
    assert [axes.get_ylabel() for axes in drawn] == ["mlp, audio", "mlp, visual"]
    assert [axes.get_ylim() for axes in drawn] == [(2, 0), (1, 0)]
    corners = [[patch.get_xy() for patch in axes.patches] for axes in drawn]
    assert corners == [[(0, 0.06), (1, 1.06)], [(0, 0.06)]]
    first, second = (axes.get_position().height for axes in drawn)
    assert first == pytest.approx(2 * second)
