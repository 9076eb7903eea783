"""VSCG against its published computation written out in loops, and what follows from it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from avel.errors import ConfigError
from avel.heads.models.head import HeadOutput
from tests.heads.by_hand import Weights, agva, below, bilstm, layer_norm, linear, sigmoid, softmax
from tests.heads.models.rivals import (
    SIDE,
    B,
    K,
    category_loss,
    clips,
    decide,
    model_of,
    relevance_loss,
)

T = 9
LABELS = torch.tensor([[0, 0, 3, 3, 3, 0, 0, 0, 3], [3, 3, 2, 2, 2, 2, 2, 2, 3]])


def propagate(w: Weights, v: np.ndarray, a: np.ndarray, again: bool) -> tuple[np.ndarray, np.ndarray]:
    v1, v2 = (np.maximum(linear(w, f"{n}.0", v), 0) for n in ("v1", "v2"))
    a1, a2 = (np.maximum(linear(w, f"{n}.0", a), 0) for n in ("a1", "a2"))
    beta = np.maximum(v2 @ a1.T / 16, 0)

    def gamma(pairs: np.ndarray) -> np.ndarray:
        kept = np.zeros_like(pairs)
        for i, row in enumerate(pairs):
            part = row / (row.sum() + 1e-8)
            cut = np.array([value if value > 0.099 else 0.0 for value in part])
            kept[i] = cut / (cut.sum() + 1e-8) if again else cut
        return kept

    norm = (w["norm.weight"], w["norm.bias"], 1e-6)
    new_v, new_a = v + gamma(beta) @ a2, a + gamma(beta.T) @ v1
    return (
        layer_norm(np.maximum(linear(w, "out_v.0", new_v), 0), *norm),
        layer_norm(np.maximum(linear(w, "out_a.0", new_a), 0), *norm),
    )


def convolved(w: Weights, name: str, rows: np.ndarray) -> np.ndarray:
    """Convolution over five segments, ReLU, the larger of each two: (T, D) -> (T // 2, 128)."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    found = []
    for t in range(len(rows)):
        total = bias.copy()
        for tap in range(5):
            if 0 <= t + tap - 2 < len(rows):
                total += weight[:, :, tap] @ rows[t + tap - 2]
        found.append(np.maximum(total, 0))
    return np.array([np.maximum(found[2 * i], found[2 * i + 1]) for i in range(len(rows) // 2)])


def gru_direction(w: Weights, suffix: str, steps: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Gates in torch's order: reset, update, new."""
    states = []
    for step in steps:
        r_x, z_x, n_x = np.split(w[f"weight_ih_{suffix}"] @ step + w[f"bias_ih_{suffix}"], 3)
        r_h, z_h, n_h = np.split(w[f"weight_hh_{suffix}"] @ hidden + w[f"bias_hh_{suffix}"], 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        hidden = (1 - z) * np.tanh(n_x + r * n_h) + z * hidden
        states.append(hidden)
    return np.array(states)


def bigru(w: Weights, steps: np.ndarray, first: np.ndarray) -> np.ndarray:
    forward = gru_direction(w, "l0", steps, first[0])
    return np.concatenate((forward, gru_direction(w, "l0_reverse", steps[::-1], first[1])[::-1]), 1)


def fused(w: Weights, audio: np.ndarray, visual: np.ndarray, weak: bool) -> tuple[np.ndarray, np.ndarray]:
    """F of one clip (T, 256), and the cosines of the two streams that it is the mean of (T,)."""
    a = audio if weak else linear(w, "audio.1", linear(w, "audio.0", audio))
    v = agva(below(w, "agva."), a, visual) if visual.ndim == 3 else visual
    v = linear(w, "visual", v) if weak else linear(w, "visual.1", linear(w, "visual.0", v))
    a, v = bilstm(below(w, "audio_lstm.lstm."), a), bilstm(below(w, "visual_lstm.lstm."), v)
    v, a = propagate(below(w, "propagate."), v, a, again=not weak)
    of_a, of_v = (convolved(w, "summary.layers.3", convolved(w, "summary.layers.0", x)) for x in (a, v))
    if weak:
        first_a, first_v = linear(w, "cross_a", of_v), linear(w, "cross_v", of_a)
    else:
        first_a = first_v = (of_a + of_v) / 2
    a, v = bigru(below(w, "audio_gru."), a, first_a), bigru(below(w, "visual_gru."), v, first_v)
    if not weak:
        a, v = np.maximum(linear(w, "out_a.0", a), 0), np.maximum(linear(w, "out_v.0", v), 0)
    norm = (w["norm.weight"], w["norm.bias"], 1e-6)
    a, v = layer_norm(a, *norm), layer_norm(v, *norm)
    cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(v, a, strict=True)]
    return (a + v) / 2, np.array(cosines)


@pytest.mark.parametrize("maps", [True, False])
def test_vscg(maps: bool) -> None:
    model, w = model_of("vscg", SIDE**2 if maps else 0, T)
    audio, visual = clips(maps, segments=T)
    extras = {name: values.detach().numpy() for name, values in model(audio, visual).extras.items()}
    for clip in range(B):
        rows = visual[clip].flatten(1, 2).numpy() if maps else visual[clip].numpy()
        F, cosines = fused(w, audio[clip].numpy(), rows, weak=False)
        np.testing.assert_allclose(extras["similarity"][clip], cosines, rtol=1e-7)
        np.testing.assert_allclose(extras["relevance"][clip], linear(w, "relevance", F)[:, 0], rtol=1e-7)
        np.testing.assert_allclose(extras["category"][clip], linear(w, "category", F.max(0)), rtol=1e-7)


def test_segments_hold_the_clips_event_above_the_threshold() -> None:
    model, _ = model_of("vscg", segments=T)
    output = model(*clips(segments=T))
    relevance = torch.linspace(-3, 3, 2 * T).reshape(2, T).double()
    category = output.extras["category"]
    decided = model.head.decided(relevance, category, {}).logits.argmax(-1).numpy()
    assert (decided == decide(relevance.numpy(), category.detach().numpy(), 0.7)).all()


def test_loss() -> None:
    model, _ = model_of("vscg", segments=T)
    output = model(*clips(segments=T))
    extras = {name: values.detach().numpy() for name, values in output.extras.items()}
    errors = []
    for clip in range(B):
        holds = (LABELS[clip].numpy() < K - 1).astype(float)
        similar = np.maximum(extras["similarity"][clip], 0)
        errors += ((similar / (similar.sum() + 1e-8) - holds / holds.sum()) ** 2).tolist()
    labels = LABELS.numpy()
    expected = relevance_loss(extras["relevance"], labels) + category_loss(extras["category"], labels)
    assert model.loss(output, LABELS).item() == pytest.approx(expected + np.mean(errors), rel=1e-6)


def test_weak_vscg() -> None:
    model, w = model_of("vscg", segments=T, supervision="weak")
    audio, maps = clips(segments=T)
    logits = model(audio, maps).logits.detach().numpy()
    for clip in range(B):
        F, _ = fused(w, audio[clip].numpy(), maps[clip].flatten(1, 2).numpy(), weak=True)
        scores = linear(w, "category.2", np.maximum(linear(w, "category.0", F), 0))
        gate = sigmoid(np.maximum(linear(w, "gate", scores), 0))
        assert (gate >= 0.5).all()
        np.testing.assert_allclose(logits[clip], scores * gate, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("fractions", [True, False])
def test_weak_loss(fractions: bool) -> None:
    model, _ = model_of("vscg", segments=T, supervision="weak")
    output = model(*clips(segments=T))
    terms, told = [], np.array([[0, 0.25, 0, 0.75], [1.0, 0, 0, 0]])
    for clip, category in enumerate((2, 0)):
        wanted = told[clip] if fractions else np.eye(K)[category]
        once = softmax(output.logits[clip].detach().numpy().mean(0))
        for weight, p in ((2, once), (1, softmax(once))):
            terms.append(-weight * np.mean(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)))
    expected = np.sum(terms) / B
    labels = torch.from_numpy(told) if fractions else torch.tensor([2, 0])
    assert model.loss(output, labels).item() == pytest.approx(expected, rel=1e-9)


def test_dropout_is_where_the_published_networks_have_it() -> None:
    for supervision, expected in (("full", (0.2, 0.2, 0.1)), ("weak", (0.1, 0.2, 0.5))):
        model, _ = model_of("vscg", segments=T, supervision=supervision)
        parts = {name: part.p for name, part in model.head.named_modules() if isinstance(part, nn.Dropout)}
        after = "out_a" if supervision == "weak" else "out_a.2"
        assert (parts["propagate.v1.2"], parts["propagate.out_a.2"], parts[after]) == expected


def test_weak_loss_is_finite_where_the_scores_are_certain() -> None:
    model, _ = model_of("vscg", segments=T, supervision="weak")
    logits = (1e4 * functional.one_hot(LABELS % K, K)).float().requires_grad_()
    loss = model.loss(HeadOutput(logits, {}), torch.tensor([1, 1]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("segments", [7, 12])
def test_lengths_that_do_not_pool_to_two_are_refused(segments: int) -> None:
    with pytest.raises(ConfigError, match=f"'vscg' takes 8 to 11 segments, the clips have {segments}"):
        model_of("vscg", segments=segments)


@pytest.mark.parametrize("segments", [8, 9, 10, 11])
def test_other_lengths_are_taken(segments: int) -> None:
    model, _ = model_of("vscg", segments=segments)
    assert model(*clips(segments=segments)).logits.shape == (B, segments, K)
