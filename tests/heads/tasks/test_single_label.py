"""One label a segment: losses and blocks against what is written out by hand."""

import numpy as np
import pytest
import torch

from avel.heads.tasks.single_label import SingleLabel
from avel.heads.tasks.task import Block
from avel.stores.datasets.labels import PADDED

TASK = SingleLabel(("bell", "dog"))


def test_losses_are_cross_entropies_written_out() -> None:
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, video_labels = torch.tensor([[0, 2, 1], [2, 2, 0]]), torch.tensor([1, 0])
    total = 0.0
    for clip in range(2):
        for segment in range(3):
            scores = logits[clip, segment].numpy()
            total -= scores[labels[clip, segment]] - np.log(np.exp(scores).sum())
    assert TASK.loss(logits, labels).item() == pytest.approx(total / 6)
    total = 0.0
    for clip in range(2):
        scores = logits[clip].numpy().mean(0)
        total -= scores[video_labels[clip]] - np.log(np.exp(scores).sum())
    assert TASK.video_loss(logits, video_labels).item() == pytest.approx(total / 2)


def test_a_label_is_right_where_its_score_is_the_highest() -> None:
    logits = torch.tensor([[[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]]])
    assert TASK.points(logits, torch.tensor([[1, 0]])).tolist() == [1]
    assert TASK.points(logits, torch.tensor([[1, 2]])).tolist() == [2]
    assert TASK.full_points(torch.tensor([[1, 2], [0, PADDED]])).tolist() == [2, 1]
    assert TASK.points(logits, torch.tensor([[-1, -1]])).tolist() == [0]
    assert TASK.sample_scores(np.array([[1, 0], [2, 2]]), np.array([[1, 2], [2, 2]])).tolist() == [0.5, 1.0]
    wanted = np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum()
    np.testing.assert_allclose(TASK.probabilities(logits)[0, 0], wanted, rtol=1e-6)


def test_a_video_is_right_where_its_likeliest_event_is() -> None:
    logits = torch.tensor(
        [
            [[2.0, 1.0, 9.0], [2.5, 0.0, 1.0]],  # an event in one segment; 0 is the likelier one
            [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]],  # background throughout
            [[0.0, 4.0, 2.0], [0.0, 4.0, 2.0]],
        ]
    )
    for wanted, right in (([0, 2, 1], [1, 1, 1]), ([1, 1, 2], [0, 0, 0]), ([2, 0, 0], [0, 0, 0])):
        assert TASK.video_points(logits, torch.tensor(wanted)).tolist() == right
    stacked = TASK.video_points(torch.stack((logits, logits.roll(1, 0))), torch.tensor([0, 2, 1]))
    assert stacked.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_blocks_of_labels_and_of_predictions_beside_them() -> None:
    labels = np.array([2, 0, 0, 1, 2, 2])
    assert TASK.blocks(labels) == [
        (
            Block(0, 1, "background", "bg"),
            Block(1, 3, "label", "bell"),
            Block(3, 4, "label", "dog"),
            Block(4, 6, "background", "bg"),
        )
    ]
    assert TASK.blocks(np.array([2, 0, 1, 1, 2, 0]), labels) == [
        (
            Block(0, 1, "background", "bg"),
            Block(1, 2, "right", "bell"),
            Block(2, 3, "wrong", "dog"),
            Block(3, 4, "right", "dog"),
            Block(4, 5, "background", "bg"),
            Block(5, 6, "wrong", "bell"),
        )
    ]
    (missed,) = TASK.blocks(np.array([2, 2, 0, 1, 2, 2]), labels)
    assert missed[:2] == (Block(0, 1, "background", "bg"), Block(1, 2, "wrong", "bg"))


def test_without_labels_predictions_are_neither_right_nor_wrong() -> None:
    unknown = np.full(3, -1)
    assert TASK.blocks(np.array([0, 0, 2]), unknown) == [
        (Block(0, 2, "prediction", "bell"), Block(2, 3, "background", "bg"))
    ]
    assert TASK.blocks(unknown) == [()]


@pytest.mark.parametrize(
    ("labels", "title"),
    [([2, 1, 1, 0, 1], "dog, bell"), ([2, 2], "no event"), ([-1, -1], "events unknown")],
)
def test_a_clip_is_named_by_its_classes_in_order(labels: list[int], title: str) -> None:
    assert TASK.title(np.array(labels)) == title
