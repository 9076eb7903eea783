"""DAM against its description written out in loops, and what follows from it."""

import numpy as np
import pytest
import torch

from avel.heads.models.dam import matching
from tests.heads.by_hand import Weights, agva, below, linear, multihead, relu, sigmoid
from tests.heads.models.rivals import (
    LABELS,
    SIDE,
    B,
    K,
    T,
    assert_order_has_no_effect,
    category_loss,
    clips,
    live_parameters,
    model_of,
    numpy,
    relevance_loss,
)


def by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p (T,) and category scores of one clip."""
    v = agva(below(w, "agva."), audio, visual) if visual.ndim == 3 else visual
    f_a, f_v = linear(w, "audio", audio), linear(w, "visual", v)
    g_a = multihead(below(w, "attend_a."), f_a, f_a, 1)[0].mean(0)
    g_v = multihead(below(w, "attend_v."), f_v, f_v, 1)[0].mean(0)
    p = [(sigmoid(g_v @ f_a[t]) + sigmoid(g_a @ f_v[t])) / 2 for t in range(T)]
    hidden = relu(linear(w, "category.3", relu(linear(w, "category.0", np.concatenate((g_a, g_v))))))
    return np.array(p), linear(w, "category.6", hidden)


@pytest.mark.parametrize("maps", [True, False])
def test_dam(maps: bool) -> None:
    model, w = model_of("dam", SIDE**2 if maps else 0)
    audio, visual = clips(maps)
    output = model(audio, visual)
    found = {name: numpy(values) for name, values in output.extras.items()}
    for clip in range(B):
        rows = visual[clip].flatten(1, 2).numpy() if maps else visual[clip].numpy()
        p, category = by_hand(w, audio[clip].numpy(), rows)
        np.testing.assert_allclose(sigmoid(found["relevance"][clip]), p, rtol=1e-7)
        np.testing.assert_allclose(found["category"][clip], category, rtol=1e-7, atol=1e-10)
        holds = found["relevance"][clip] >= 0  # p of a half holds the event, as published
        decided = [category.argmax() if event else K - 1 for event in holds]
        assert output.logits[clip].argmax(-1).tolist() == decided
    assert 0 < (found["relevance"] >= 0).mean() < 1


@pytest.mark.parametrize("weight", [0.5, 0.2, 1.0])
def test_loss_weighs_category_and_matching(weight: float) -> None:
    model, _ = model_of("dam", category_weight=weight)
    output = model(*clips())
    what = category_loss(numpy(output.extras["category"]), LABELS.numpy())
    when = relevance_loss(numpy(output.extras["relevance"]), LABELS.numpy())
    expected = weight * what + (1 - weight) * when
    assert model.loss(output, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_lambda_1_leaves_the_matching_untaught() -> None:
    for weight, taught in ((1.0, False), (0.9, True)):
        model, _ = model_of("dam", category_weight=weight)
        output = model(*clips())
        output.extras["relevance"].retain_grad()
        model.loss(output, LABELS).backward()
        gradient = output.extras["relevance"].grad
        assert gradient is not None
        assert bool(gradient.any()) == taught


def test_a_clip_that_says_nothing_matches_by_half() -> None:
    random = torch.Generator().manual_seed(1)
    f_a, f_v = torch.randn(2, B, T, 8, generator=random)
    assert not matching(f_a, f_v, torch.zeros(B, 8), torch.zeros(B, 8)).any()


def test_matching_is_the_same_with_the_modalities_swapped() -> None:
    random = torch.Generator().manual_seed(1)
    f_a, f_v = torch.randn(2, B, T, 8, generator=random)
    g_a, g_v = torch.randn(2, B, 8, generator=random)
    torch.testing.assert_close(matching(f_a, f_v, g_a, g_v), matching(f_v, f_a, g_v, g_a))


def test_matching_keeps_what_a_float32_probability_would_lose() -> None:
    f, g = torch.full((1, 1, 1), 30.0), torch.ones(1, 1)
    assert matching(f, f, g, g).item() == pytest.approx(30.0)
    assert matching(-f, -f, g, g).item() == pytest.approx(-30.0)
    assert matching(f, -f, g, g).item() == pytest.approx(0.0, abs=1e-6)


def test_segments_in_another_order_match_alike_and_keep_the_category() -> None:
    assert_order_has_no_effect("dam")


def test_parameters() -> None:
    agva, projections, attention = 378_929, 129 * 256 + 513 * 256, 2 * 4 * 257 * 256
    assert live_parameters("dam") == agva + projections + attention + 2 * 513 * 512 + 513 * 28
