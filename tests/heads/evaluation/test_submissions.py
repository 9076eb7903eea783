"""Predictions of several labels a segment, in every form: the same figures, worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, run
from avel.errors import ConfigError, DatasetError
from avel.heads.evaluation.score import Score, score
from avel.text import from_plain
from tests.heads.evaluation.files import of_table, saved

T6 = {"segments": 6}
FILES = {
    "AVVP_train.csv": "filename\tevent_labels\nseen\tbark,bell\n",
    "AVVP_test_pd.csv": "filename\tevent_labels\none\tbark\nnone\t\n",
    "AVVP_eval_audio.csv": "filename\tonset\toffset\tevent_labels\none\t1\t4\tbark\n",
    "AVVP_eval_visual.csv": "filename\tonset\toffset\tevent_labels\none\t1\t4\tbark\n",
}
OUTPUTS = ("bark (audio)", "bell (audio)", "bark (visual)", "bell (visual)")
GUESS = np.zeros((2, 6, 4), int)
GUESS[0] = np.array([[mark == "#" for mark in line] for line in ("..###.", ".....#", ".###..", "......")]).T
CSV_EVENTS = (
    {"video": "one", "class": "bark", "onset": 2, "offset": 5, "modality": "audio"},
    {"video": "one", "class": "bell", "onset": 5, "offset": 6, "modality": "audio"},
    {"video": "one.mp4", "class": "bark", "onset": 1, "offset": 4, "modality": "visual"},
    {"video": "elsewhere", "class": "bell", "onset": 0, "offset": 6, "modality": ""},
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Of the clip "one" a bark is heard and seen in seconds 1 to 4; "none" has no event."""
    root = tmp_path / "llp"
    root.mkdir()
    for name, text in FILES.items():
        (root / name).write_text(text)
    return root


def rows(**columns: bool) -> list[dict[str, object]]:
    """Rows of the guess, the last segment first."""
    found: list[dict[str, object]] = []
    for clip, video_id in enumerate(("one", "none")):
        for segment in reversed(range(6)):
            held = GUESS[clip, segment]
            row: dict[str, object] = {"video_id": video_id, "segment": segment}
            if columns.get("each"):
                row |= dict(zip(OUTPUTS, (0.1 + 0.7 * held).tolist(), strict=True))
            if columns.get("labels"):
                row["prediction"] = held.tolist()
            if columns.get("scores"):
                row["probabilities"] = (0.1 + 0.7 * held).tolist()
            found.append(row)
    return found


def check(found: Score) -> None:
    """
    Segments of "one". Audio bark: 2 found, 1 missed, 1 invented: 4/6; bell invented: 0; audio 1/3. Visual 1.
    Both: bark in 1-3, predicted in 2-3: 4/5. Event@AV: bark 10/12, bell 0. Events: 1/2, 1, 1 and bark 1, bell
    0. In "none" nothing is said of nothing, which is 1 everywhere; figures are means over the two clips.
    """
    assert (found.task, found.measure, found.samples) == ("multi_label", "Type@AV F1 of segments", 2)
    assert (found.decoder, found.accuracy_percent.mean, found.accuracy_by_decoder_percent) == (
        "threshold",
        None,
        {},
    )
    assert found.parsing is not None
    of_one = {"audio": 1 / 3, "visual": 1, "audio-visual": 4 / 5, "Type@AV": 32 / 45, "Event@AV": 5 / 12}
    assert {name: spread.mean for name, spread in found.parsing.segment_f1_percent.items()} == pytest.approx(
        {name: 50 * (1 + value) for name, value in of_one.items()}
    )
    of_one = {"audio": 1 / 2, "visual": 1, "audio-visual": 1, "Type@AV": 5 / 6, "Event@AV": 1 / 2}
    assert {name: spread.mean for name, spread in found.parsing.event_f1_percent.items()} == pytest.approx(
        {name: 50 * (1 + value) for name, value in of_one.items()}
    )
    # Nothing anywhere: of "one" all is wrong, of "none" all is right
    assert found.trivial_baselines_percent["never any event"] == 50
    assert (
        found.score_percent.mean
        == found.segment_f1_percent.mean
        == found.parsing.segment_f1_percent["Type@AV"].mean
    )
    assert found.interval_percent is not None


def test_arrays_of_the_split_and_of_the_dataset(dataset: Path, tmp_path: Path) -> None:
    check(score(saved(tmp_path / "labels.npy", GUESS), dataset, **T6))
    check(score(saved(tmp_path / "bool.npy", GUESS == 1), dataset, **T6))
    check(score(saved(tmp_path / "tracks.npy", (0.1 + 0.7 * GUESS).reshape(2, 6, 2, 2)), dataset, **T6))
    whole = np.concatenate((np.zeros((1, 6, 4)), GUESS))  # the train clip first
    check(score(saved(tmp_path / "whole.npy", whole), dataset, **T6))


def test_tables_of_segments(dataset: Path, tmp_path: Path) -> None:
    check(score(of_table(tmp_path / "each.csv", rows(each=True)), dataset, **T6))
    check(score(of_table(tmp_path / "labels.parquet", rows(labels=True)), dataset, **T6))
    both = rows(labels=True, scores=True)
    for row in both:
        row["prediction"] = [1, 1, 1, 1]  # scores are taken where there are any
    check(score(of_table(tmp_path / "scores.parquet", both), dataset, **T6))


def test_a_table_of_events_names_their_modality(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [dict(row) for row in CSV_EVENTS]
    check(score(of_table(tmp_path / "events.csv", lines), dataset, **T6))
    assert "left out: 1 row of videos without a sample in the split" in capsys.readouterr().err
    lines[1]["modality"] = "heard"
    with pytest.raises(
        DatasetError, match=r"line 3 \(one\): modality 'heard' is none of both, audio, visual"
    ):
        score(of_table(tmp_path / "events.csv", lines), dataset, **T6)
    lines[1]["modality"] = ""  # now the bell is invented in the picture, too
    found = score(of_table(tmp_path / "events.csv", lines), dataset, **T6).parsing
    assert found is not None
    assert found.segment_f1_percent["visual"].mean == pytest.approx(75)


def test_logits_are_told_from_probabilities(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(score(saved(tmp_path / "logits.npy", 3.0 * GUESS - 1.5), dataset, **T6))
    assert "taken for logits" in capsys.readouterr().err


def test_a_perfect_prediction_scores_100_in_everything(dataset: Path, tmp_path: Path) -> None:
    labels = np.zeros((2, 6, 4), int)
    labels[0, 1:4, [0, 2]] = 1
    found = score(saved(tmp_path / "labels.npy", labels), dataset, **T6).parsing
    assert found is not None
    for figures in (found.segment_f1_percent, found.event_f1_percent):
        assert {spread.mean for spread in figures.values()} == {100}


def test_what_does_not_fit_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError,
        match=r"\(2, 6\), needs \(2 or 3, 6, 2, 2\) scores of each track or \(2 or 3, 6, 4\) scores",
    ):
        score(saved(tmp_path / "x.npy", np.zeros((2, 6), int)), dataset, **T6)
    one_each = [{"video_id": "one", "segment": 0, "prediction": "bark"}]
    with pytest.raises(DatasetError, match=r"lists as prediction.* bark \(audio\), bell \(audio\)"):
        score(of_table(tmp_path / "x.csv", one_each), dataset, **T6)
    with pytest.raises(ConfigError, match="no decoder named 'argmax' for task multi_label"):
        score(saved(tmp_path / "x.npy", GUESS), dataset, decoder="argmax", **T6)
    with pytest.raises(DatasetError, match="only visible or only audible"):
        score(saved(tmp_path / "x.npy", np.zeros((2, 6), int)), dataset, task="single_label", **T6)


def test_events_of_both_modalities_have_one_track(tmp_path: Path) -> None:
    """Two classes at once in a folder with a table of events: one label a segment cannot say that."""
    (tmp_path / "a.mp4").touch()
    lines = "a,bark,0,4,test\na,bell,2,6,test\n"
    (tmp_path / "events.csv").write_text("file,class,onset,offset,split\n" + lines)
    labels = np.zeros((1, 6, 2), int)
    labels[0, :4, 0] = labels[0, 2:, 1] = 1
    guess = labels.copy()
    guess[0, 3, 0] = 0  # bark: 3 of 4 found, 6/7
    options = {"annotations": tmp_path / "events.csv", **T6}
    file = saved(tmp_path / "guess.npy", guess)
    found = score(file, tmp_path, task="multi_label", **options)
    assert found.parsing is not None
    assert set(found.parsing.segment_f1_percent) == {"audio-visual", "Type@AV", "Event@AV"}
    assert found.score_percent.mean == pytest.approx(100 * (6 / 7 + 1) / 2)
    with pytest.raises(DatasetError, match="'bark' and 'bell' overlap from 2 s to 4 s"):
        score(file, tmp_path, **options)


def test_the_command_is_the_function(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(saved(tmp_path / "g.npy", GUESS))
    command = ["score", file, "--dataset", str(dataset), "--segments", "6"]
    assert run(cli, [*command, "--json"]) == DONE
    check(from_plain(Score, json.loads(capsys.readouterr().out)))
    assert run(cli, [*command, "--task", "single_label"]) == ERROR
