"""Scores of classes and kinds of mistakes in events, against answers worked out by hand."""

import numpy as np
import pytest

from avel.heads.tasks.mistakes import class_scores, event_errors
from avel.heads.tasks.multi_label import MultiLabel
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.tasks.task import Task

TASK = SingleLabel(("Dog", "Bell"))
DOG, BELL, NONE, AFTER = 0, 1, 2, -2


def held(task: Task, *rows: list[int]) -> np.ndarray:
    return task.class_masks(np.array(rows))


def test_scores_of_classes_are_counted_over_segments_and_seeds() -> None:
    label = held(TASK, [DOG, DOG, NONE, BELL], [NONE, NONE, AFTER, AFTER])
    first = held(TASK, [DOG, BELL, NONE, NONE], [DOG, NONE, AFTER, AFTER])
    dog, bell, background = class_scores([first, label], label, TASK.class_names)
    assert (dog.segments, dog.precision_percent, dog.recall_percent) == (2, 75.0, 75.0)
    assert (bell.segments, bell.precision_percent, bell.recall_percent) == (1, 50.0, 50.0)
    assert (background.segments, background.precision_percent) == (3, pytest.approx(100 * 5 / 6))
    assert background.recall_percent == pytest.approx(100 * 5 / 6)


def test_a_class_that_never_stands_anywhere_has_no_scores() -> None:
    label = held(TASK, [DOG, NONE])
    _, bell, _ = class_scores([label], label, TASK.class_names)
    assert (bell.precision_percent, bell.recall_percent, bell.f1_percent) == (None, None, None)


@pytest.mark.parametrize(
    ("predicted", "kinds"),
    [
        ([NONE, DOG, DOG, NONE, NONE, NONE], {"exact"}),
        ([DOG, DOG, DOG, NONE, NONE, NONE], {"begin_early"}),
        ([NONE, NONE, DOG, NONE, NONE, NONE], {"begin_late"}),
        ([NONE, DOG, NONE, NONE, NONE, NONE], {"end_early"}),
        ([DOG, DOG, DOG, DOG, NONE, NONE], {"begin_early", "end_late"}),
        ([NONE, BELL, BELL, NONE, NONE, NONE], {"missed", "invented"}),
        ([NONE, NONE, NONE, NONE, DOG, NONE], {"missed", "invented"}),
        ([NONE, DOG, DOG, NONE, DOG, NONE], {"exact", "invented"}),
    ],
)
def test_an_event_is_early_late_missed_or_invented(predicted: list[int], kinds: set[str]) -> None:
    label = [NONE, DOG, DOG, NONE, NONE, NONE]
    found = event_errors([held(TASK, predicted)[..., :-1]], held(TASK, label)[..., :-1])
    counts = vars(found)
    assert counts.pop("events") == 1
    assert {name for name, count in counts.items() if count} == kinds


def test_events_of_each_track_are_counted_apart_and_averaged_over_seeds() -> None:
    task = MultiLabel(("Dog",), ("audio", "visual"))
    label = task.class_masks(np.array([[[1, 0], [1, 1], [0, 1]]]))
    blind = task.class_masks(np.array([[[1, 0], [1, 0], [0, 0]]]))
    found = event_errors([blind[..., :-1], label[..., :-1]], label[..., :-1])
    assert (found.events, found.exact, found.missed) == (2, 1.5, 0.5)
    audio_and_visual = class_scores([blind], label, task.class_names)
    assert (audio_and_visual[0].segments, audio_and_visual[0].recall_percent) == (4, 50.0)
    assert audio_and_visual[1].precision_percent == pytest.approx(100 * 2 / 4)
