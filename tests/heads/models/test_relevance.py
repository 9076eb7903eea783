"""Scores and losses of heads with relevance and category: the published decision, in loops."""

import numpy as np
import pytest
import torch

from avel.heads.models.relevance import (
    category_loss,
    decision_scores,
    multiple_instance_loss,
    relevance_loss,
)
from avel.heads.tasks.single_label import clip_category, decode_event
from tests.heads.models import rivals
from tests.heads.models.rivals import LABELS, K, decide


def drawn(scored: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shape = (200, 6), (200, scored)
    relevance, category = (3 * torch.randn(*each, generator=random, dtype=torch.float64) for each in shape)
    return relevance, category


@pytest.mark.parametrize("scored", [K - 1, K], ids=["events", "background too"])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.05])
def test_the_largest_score_is_the_published_decision(scored: int, threshold: float) -> None:
    relevance, category = drawn(scored)
    scores = decision_scores(relevance, category, K, threshold)
    expected = decide(relevance.numpy(), category.numpy(), threshold)
    assert set(np.unique(expected)) == set(range(K))
    np.testing.assert_array_equal(scores.argmax(-1).numpy(), expected)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_the_event_decoder_decides_the_same(threshold: float) -> None:
    relevance, category = drawn(K - 1)
    probabilities = decision_scores(relevance, category, K, threshold).softmax(-1)
    expected = decide(relevance.numpy(), category.numpy(), threshold)
    np.testing.assert_array_equal(decode_event(probabilities.numpy()), expected)


def test_event_and_background_share_their_probability_by_relevance() -> None:
    relevance, category = drawn(K - 1)
    probabilities = decision_scores(relevance, category, K, 0.5).softmax(-1).numpy()
    for clip in range(20):
        best = int(category[clip].argmax())
        for t in range(6):
            pair = probabilities[clip, t, [best, K - 1]]
            expected = 1 / (1 + np.exp(-relevance[clip, t].item()))
            assert pair[0] / pair.sum() == pytest.approx(expected, rel=1e-9)


def test_scores_grow_with_relevance_and_keep_the_order_of_categories() -> None:
    relevance, category = drawn(K - 1)
    probabilities = decision_scores(relevance, category, K, 0.5).softmax(-1)
    raised = decision_scores(relevance + 1, category, K, 0.5).softmax(-1)
    assert (raised[..., -1] < probabilities[..., -1]).all()
    order = category.argsort(-1)[:, None].expand(-1, 6, -1)
    assert (probabilities[..., :-1].argsort(-1) == order).all()


def test_the_category_of_a_clip() -> None:
    labels = torch.tensor([[3, 0, 0, 3], [3, 3, 3, 3], [2, 0, 3, 1], [0, 0, 0, 0]])
    assert clip_category(labels, 4).tolist() == [0, 3, 2, 0]


def test_full_losses_in_loops() -> None:
    relevance, category = (values[:2] for values in drawn(K - 1))
    relevance = relevance[:, :5]
    found = relevance_loss(relevance, LABELS, K).item()
    assert found == pytest.approx(rivals.relevance_loss(relevance.numpy(), LABELS.numpy()), rel=1e-9)
    found = category_loss(category, LABELS, K).item()
    assert found == pytest.approx(rivals.category_loss(category.numpy(), LABELS.numpy()), rel=1e-9)


def test_a_clip_without_an_event_has_no_part_in_the_category_loss() -> None:
    _, category = drawn(K - 1)
    labels = torch.tensor([[1, 3], [3, 3], [3, 0]])
    both = category_loss(category[[0, 2]], labels[[0, 2]], K)
    torch.testing.assert_close(category_loss(category[:3], labels, K), both)
    silent = category.clone().requires_grad_()
    category_loss(silent[1:2], labels[1:2], K).backward()
    assert silent.grad is not None
    assert not silent.grad.any()


@pytest.mark.parametrize("scored", [K - 1, K], ids=["events", "background too"])
def test_weak_loss_in_loops(scored: int) -> None:
    relevance, category = (values[:4] for values in drawn(scored))
    categories = [2, 0, 1, 3]  # the last clip holds no event
    found = multiple_instance_loss(relevance, category, torch.tensor(categories), K).item()
    expected = rivals.instance_loss(relevance.numpy(), category.numpy(), categories)
    assert found == pytest.approx(expected, rel=1e-9)
