"""`score`: all forms of predictions give the same figures, counted by hand and as sed_eval defines them."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR
from avel.console import run as run_command
from avel.errors import ConfigError, DatasetError, MissingPathError
from avel.heads.evaluation.predictions import Predictions, compute_metrics
from avel.heads.evaluation.score import Score, score
from avel.heads.tasks.results import Spread
from avel.heads.tasks.single_label import SingleLabel
from avel.text import from_plain
from tests.heads.evaluation.files import of_table, saved

# Bell 0, Dog 1, background 2; the third line is of a video that is in train too
LINES = ["Bell&000&good&1&3", "Dog&b&good&0&4", "Dog&000&good&1&2", "Bell&c&good&0&2", "Bell&d&good&2&4"]
SPLITS = {"train": [0], "test": [1, 2, 4], "val": [3]}
LABEL = np.array([[1, 1, 1, 1], [2, 1, 2, 2], [2, 2, 0, 0]])
GUESS = np.array([[1, 1, 0, 0], [2, 1, 1, 2], [2, 2, 0, 0]])  # 2 + 3 + 4 right of 12
NAMES = ("Bell", "Dog", "background")
T4 = {"segments": 4}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "AVE_Dataset"
    (root / "AVE").mkdir(parents=True)
    (root / "Annotations.txt").write_text("\n".join(LINES) + "\n")
    for split, numbers in SPLITS.items():
        (root / f"{split}Set.txt").write_text("".join(f"{LINES[number]}\n" for number in numbers))
    for name in ("000", "b", "c", "d"):
        (root / "AVE" / f"{name}.mp4").touch()
    return root


def one_hot(labels: np.ndarray) -> np.ndarray:
    return 0.1 + 0.7 * np.eye(3)[labels]


def segment_rows(key: str, **more: bool) -> list[dict[str, object]]:
    """Rows of the guess in an order that is not the dataset's."""
    about = {"sample": [1, 2, 4], "video_id": ["b", "000", "d"]}[key]
    rows: list[dict[str, object]] = []
    for place, segment in reversed(list(product(range(3), range(4)))):
        guess = GUESS[place, segment]
        row: dict[str, object] = {key: about[place], "segment": segment}
        if more.get("names"):
            row["prediction"] = NAMES[guess]
        elif more.get("columns"):
            row |= dict(zip(NAMES, one_hot(GUESS)[place, segment].tolist(), strict=True))
        elif more.get("lists"):
            row["probabilities"] = one_hot(GUESS)[place, segment].tolist()
        else:
            row["prediction"] = int(guess)
        rows.append(row)
    return rows


def check(found: Score) -> None:
    assert (found.samples, found.unknown_samples, found.leaked_samples) == (3, 0, 1)
    assert found.accuracy_percent == Spread(pytest.approx(100 * 9 / 12), None)
    assert found.accuracy_without_leaked_percent.mean == pytest.approx(100 * 6 / 8)
    assert found.accuracy_holding_background_percent.mean == pytest.approx(100 * 7 / 8)
    assert found.segment_f1_percent.mean == pytest.approx(100 * 2 * 5 / (8 + 7))
    assert found.recall_percent == {"Bell": pytest.approx(100), "Dog": pytest.approx(100 * 3 / 5)}
    assert found.background_recall_percent == pytest.approx(100 * 4 / 5)
    assert found.trivial_baselines_percent["always background"] == pytest.approx(100 * 5 / 12)
    assert found.interval_percent is not None
    assert found.interval_percent[0] < 75 < found.interval_percent[1]


def test_arrays_of_the_split_and_of_the_dataset(dataset: Path, tmp_path: Path) -> None:
    check(score(saved(tmp_path / "split.npy", GUESS), dataset, **T4))
    whole = np.full((5, 4), 2)
    whole[[1, 2, 4]] = GUESS
    check(score(saved(tmp_path / "whole.npy", whole), dataset, **T4))
    check(score(saved(tmp_path / "scores.npy", one_hot(GUESS)), dataset, **T4))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("key", ["sample", "video_id"])
@pytest.mark.parametrize("what", ["names", "numbers", "columns"])
def test_tables_of_segments(dataset: Path, tmp_path: Path, ending: str, key: str, what: str) -> None:
    file = of_table(tmp_path / f"guess.{ending}", segment_rows(key, **{what: True}))
    check(score(file, dataset, **T4))


def test_lists_of_probabilities_and_both_decoders(dataset: Path, tmp_path: Path) -> None:
    rows = segment_rows("sample", lists=True)
    surest = next(row for row in rows if (row["sample"], row["segment"]) == (1, 3))
    surest["probabilities"] = [0.94, 0.03, 0.03]
    found = score(of_table(tmp_path / "p.parquet", rows), dataset, **T4)
    check(found)
    # One class a clip: "Dog Dog Bell Bell" becomes Bell, or background, which is right nowhere in it
    assert found.accuracy_by_decoder_percent["event"].mean == pytest.approx(100 * (0 + 3 + 4) / 12)


def test_a_table_of_events_is_background_where_nothing_stands(dataset: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"video": "b.mp4", "class": "Dog", "onset": 0, "offset": 2},
        {"video": "b.mp4", "class": "Bell", "onset": 2, "offset": 4},
        {"video": "000", "class": "Dog", "onset": 1.2, "offset": 2.9},
        {"video": "d", "class": "Bell", "onset": 2, "offset": 4},
        {"video": "elsewhere", "class": "Bell", "onset": 0, "offset": 4},
    ]
    found = score(of_table(tmp_path / "events.csv", rows), dataset, **T4)
    check(found)
    assert set(found.accuracy_by_decoder_percent) == {"argmax"}
    rows[0]["class"] = "Cat"
    with pytest.raises(DatasetError, match=r"line 2.*no class named 'Cat'"):
        score(of_table(tmp_path / "events.csv", rows), dataset, **T4)


def test_several_files_are_several_seeds(dataset: Path, tmp_path: Path) -> None:
    files = [saved(tmp_path / "a.npy", GUESS), saved(tmp_path / "b.npy", LABEL)]
    found = score(files, dataset, **T4)
    assert found.accuracy_percent == Spread(pytest.approx(87.5), pytest.approx(np.std([75, 100], ddof=1)))
    assert len(found.predictions) == 2


def test_logits_are_told_from_probabilities(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.log(one_hot(GUESS)) + 3
    found = score(saved(tmp_path / "logits.npy", logits), dataset, **T4)
    assert "taken for logits" in capsys.readouterr().err
    assert (
        found.accuracy_by_decoder_percent
        == score(
            saved(tmp_path / "p.npy", one_hot(GUESS) / one_hot(GUESS).sum(-1, keepdims=True)), dataset, **T4
        ).accuracy_by_decoder_percent
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((2, 4), int), r"\(2, 4\), needs \(3 or 5, 4\) labels or \(3 or 5, 4, 3\) scores"),
        (np.zeros((3, 4)), "labels have type float64"),
        (np.full((3, 4), 3), "class 3.*go from 0 to 2"),
        (np.full((3, 4, 3), np.nan), "not finite"),
        (np.array([{}], object), "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    dataset: Path, tmp_path: Path, values: np.ndarray, says: str
) -> None:
    with pytest.raises(DatasetError, match=f"(?s){says}"):
        score(saved(tmp_path / "x.npy", values), dataset, **T4)


def test_tables_that_do_not_fit_are_refused(dataset: Path, tmp_path: Path) -> None:
    rows = segment_rows("sample", names=True)
    file = tmp_path / "x.csv"
    with pytest.raises(DatasetError, match=r"1 of 3 samples lack predictions, the first is sample 4 \(d\)"):
        score(of_table(file, rows[1:]), dataset, **T4)
    with pytest.raises(DatasetError, match="segment 3 of 4 is there twice"):
        score(of_table(file, [*rows, rows[0]]), dataset, **T4)
    with pytest.raises(DatasetError, match=r"segment 3 of 4\s+next: segments go from 0 to 2"):
        score(of_table(file, rows), dataset, segments=3)
    with pytest.raises(DatasetError, match="no class named 'Cat'"):
        score(of_table(file, [*rows[1:], rows[0] | {"prediction": "Cat"}]), dataset, **T4)
    with pytest.raises(DatasetError, match="lacks a column; it has segment, said"):
        score(of_table(file, [{"segment": 0, "said": 1}]), dataset, **T4)
    with pytest.raises(MissingPathError):
        score(tmp_path / "none.npy", dataset)
    with pytest.raises(ConfigError, match="'event' needs scores"):
        score(saved(tmp_path / "l.npy", GUESS), dataset, decoder="event", **T4)


def test_the_command_is_the_function(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(saved(tmp_path / "p.npy", one_hot(GUESS)))
    command = ["score", file, "--dataset", str(dataset), "--segments", "4"]
    assert run_command(cli, [*command, "--decoder", "event", "--json"]) == DONE
    shown = from_plain(Score, json.loads(capsys.readouterr().out))
    assert shown == score(file, dataset, decoder="event", **T4)
    assert run_command(cli, ["score", file, "--dataset", str(tmp_path / "none")]) == ERROR


# sed_eval 0.2.1 (Mesaros et al. 2016), written out from its documentation


def sed_eval_events(reference: list, estimated: list, collar: float) -> tuple[int, int, int]:
    """Event-based counts of one file, by the best matching of events of a class within the collar."""
    fits = [
        [r[0] == e[0] and abs(r[1] - e[1]) <= collar and abs(r[2] - e[2]) <= collar for e in estimated]
        for r in reference
    ]
    taken: dict[int, int] = {}

    def augment(row: int, visited: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in visited:
                visited.add(column)
                if column not in taken or augment(taken[column], visited):
                    taken[column] = row
                    return True
        return False

    hits = sum(augment(row, set()) for row in range(len(reference)))
    return hits, len(reference), len(estimated)


def sed_eval_segments(reference: list, estimated: list, segments: int) -> tuple[int, int, int]:
    """Segment-based counts of one file: a class is active in a segment if an event of it reaches into it."""

    def active(events: list) -> set[tuple[int, int]]:
        return {(c, t) for c, on, off in events for t in range(segments) if on < t + 1 and off > t}

    true, found = active(reference), active(estimated)
    return len(true & found), len(true), len(found)


def events(row: np.ndarray, background: int) -> list[tuple[int, float, float]]:
    """(class, onset, offset) in seconds, by walking along the segments."""
    found: list[tuple[int, float, float]] = []
    for segment, label in enumerate(row.tolist()):
        if label == background:
            continue
        if found and found[-1][0] == label and found[-1][2] == segment:
            found[-1] = (label, found[-1][1], segment + 1.0)
        else:
            found.append((label, float(segment), segment + 1.0))
    return found


@pytest.mark.parametrize("collar", [0, 1, 2])
def test_event_and_segment_f1_are_those_of_sed_eval(collar: int) -> None:
    """With one collar for onset and offset (percentage_of_length 0), over all classes together (micro)."""
    random = np.random.default_rng(collar)
    label = random.integers(0, 3, (200, 10)).repeat(2, 1)[:, :10]
    guess = np.where(random.random(label.shape) < 0.6, label, random.integers(0, 3, label.shape))
    by_event, by_segment = np.zeros(3), np.zeros(3)
    for true, said in zip(label, guess, strict=True):
        lists = events(true, 2), events(said, 2)
        by_event += sed_eval_events(*lists, collar)
        by_segment += sed_eval_segments(*lists, 10)
    ids = np.arange(200).astype(str).astype(object)
    about = np.arange(200), ids, np.zeros(200, bool), label
    item = Predictions("", "test", *about, np.eye(3, dtype=np.float32)[guess])
    found = compute_metrics([item], SingleLabel(("a", "b")), "argmax", (collar, collar))
    for counts, measured in (
        (by_event, found.events.f1_percent.mean),
        (by_segment, found.segment_f1_percent.mean),
    ):
        precision, recall = counts[0] / counts[2], counts[0] / counts[1]
        assert measured == pytest.approx(100 * 2 * precision * recall / (precision + recall))


def test_seen_and_unseen_classes_are_evaluated_apart(tmp_path: Path) -> None:
    """Two clips have their class in seconds 0 to 4; the guess has one of them right, the other too long."""
    rows = ["train,arc,close,a", "test,arc,close,b", "test,cow,open,c"]
    (tmp_path / "ovave_dataset_meta.csv").write_text("\n".join(["split,cls_name,cls_type,vid_name", *rows]))
    labels = {row[-1]: {"category": row.split(",")[1], "label": str([1] * 5 + [0] * 5)} for row in rows}
    (tmp_path / "ovavel_dataset_anno.json").write_text(json.dumps(labels))
    guess = saved(tmp_path / "guess.npy", np.array([[0] * 5 + [2] * 5, [1] * 8 + [2] * 2]))
    by_tag = score(guess, tmp_path).by_tag
    figures = {
        tag: (found.samples, found.accuracy_percent.mean, found.event_f1_percent.mean)
        for tag, found in by_tag.items()
    }
    assert figures == {"seen": (1, 100, 100), "unseen": (1, 70, 0), "all": (2, 85, 50)}
    assert by_tag["unseen"].segment_f1_percent.mean == pytest.approx(100 * 2 * 5 / (8 + 5))


def test_trials_may_be_numbers_and_a_table_of_another_split_is_refused(dataset: Path, tmp_path: Path) -> None:
    rows = segment_rows("sample", names=True)
    both = [row | {"trial": trial, "split": "test"} for trial in (0, 1) for row in rows]
    found = score(of_table(tmp_path / "x.csv", both), dataset, **T4)
    assert found.predictions == (f"{tmp_path / 'x.csv'}: 0", f"{tmp_path / 'x.csv'}: 1")
    other = of_table(tmp_path / "y.csv", [row | {"split": "val"} for row in both])
    with pytest.raises(DatasetError, match="no rows of split 'test'"):
        score(other, dataset, **T4)
    some = of_table(tmp_path / "z.csv", [row | {"trial": row["trial"] or ""} for row in both])
    with pytest.raises(DatasetError, match="some rows name no trial"):
        score(some, dataset, **T4)


def test_a_tag_without_samples_in_the_split_is_left_out() -> None:
    about = np.arange(3), np.array(["a", "b", "c"], object), np.zeros(3, bool), LABEL
    item = Predictions("", "test", *about, one_hot(GUESS).astype(np.float32))
    task, tags = SingleLabel(("Bell", "Dog")), {"seen": (0, 1), "unseen": (7, 8)}
    assert set(compute_metrics([item], task, "argmax", (1, 1), tags=tags).by_tag) == {"seen", "all"}
    assert not compute_metrics([item], task, "argmax", (1, 1), tags={"unseen": (7,)}).by_tag
