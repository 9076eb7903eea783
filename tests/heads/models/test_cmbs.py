"""CMBS against its published computation written out in loops, fully and weakly supervised."""

import numpy as np
import pytest
import torch

from tests.heads.by_hand import Weights, below, bilstm, linear, relu, sigmoid
from tests.heads.models.relations_by_hand import cross, encoder, fuse, gated, top_mean, watch
from tests.heads.models.rivals import (
    D_V,
    LABELS,
    B,
    K,
    T,
    assert_as_by_hand,
    assert_weak_loss,
    binary_cross_entropy,
    category_loss,
    clips,
    event_loss,
    model_of,
    numpy,
    relevance_loss,
)  # fmt: skip


def by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray) -> dict[str, np.ndarray]:
    """One clip, fully supervised."""
    cells = relu(linear(w, "project.0", visual.reshape(len(audio), -1, D_V)))
    v, found = watch(below(w, "watch."), audio, cells, 0.4)
    a, v = bilstm(below(w, "audio_lstm.lstm."), audio), bilstm(below(w, "visual_lstm.lstm."), v)
    fused = fuse(w, *gated(w, a, v, found), 4)
    found["relevance"] = linear(w, "relevance", fused)[:, 0]
    found["category"] = linear(w, "category", fused.max(0)[None])[0] + 0.3 * found["modal_category"]
    return found


def weakly_by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray) -> dict[str, np.ndarray]:
    """One clip, weakly supervised."""
    cells = relu(linear(w, "project.0", visual.reshape(len(audio), -1, D_V)))
    attended, found = watch(below(w, "watch."), audio, cells, 0.5)
    encoded_a, encoded_v = encoder(below(w, "encode_a."), audio), encoder(below(w, "encode_v."), attended)
    a, found["W_av"] = cross(below(w, "cross_a."), audio, encoded_v)
    v, found["W_va"] = cross(below(w, "cross_v."), attended, encoded_a)
    g_a, g_v = sigmoid(linear(w, "gate_a", encoded_v)), sigmoid(linear(w, "gate_v", encoded_a))
    v, a = 0.8 * v + 0.2 * g_a * v, 0.8 * a + 0.2 * g_v * a
    modal = sigmoid(linear(w, "category_v", v)) + sigmoid(linear(w, "category_a", a))
    scores = fuse(w, v, a, 2) @ w["classify.weight"].T
    p = (g_a + g_v)[:, 0] / 2
    found["relevance"] = np.log(p) - np.log(1 - p)
    found["category"] = top_mean(0.5 * scores * modal, 4)
    return found


@pytest.mark.parametrize("maps", [True, False], ids=["maps", "vectors"])
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_every_step_in_loops(supervision: str, maps: bool) -> None:
    model, w = model_of("cmbs", cells=4 if maps else 0, supervision=supervision)
    way = weakly_by_hand if supervision == "weak" else by_hand
    assert_as_by_hand(model, maps, lambda a, v: way(w, a, v))


@pytest.mark.parametrize("gate_loss", ["published", "plain"])
def test_the_loss_in_loops(gate_loss: str) -> None:
    model, _ = model_of("cmbs", gate_loss=gate_loss)
    output, labels = model(*clips()), LABELS.numpy()
    found = {name: numpy(values) for name, values in output.extras.items()}
    gate = found["gate"] if gate_loss == "published" else np.log(found["gate"] / (1 - found["gate"]))
    expected = event_loss(output, labels)
    expected += relevance_loss(gate, labels) + category_loss(found["modal_category"], labels)
    assert model.loss(output, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_the_weak_loss_in_loops() -> None:
    assert_weak_loss("cmbs")


def test_the_gate_term_stays_in_its_bounds() -> None:
    """The gate is a probability that the published loss takes for a logit."""
    low, high = np.log(2), np.log(1 + np.e)
    assert binary_cross_entropy(0.0, 0.0) == pytest.approx(low)
    assert binary_cross_entropy(1.0, 0.0) == pytest.approx(high)
    model, _ = model_of("cmbs")
    for event, bounds in ((False, (low, high)), (True, (high - 1, low))):
        output = model(*clips(count=20))
        assert ((output.extras["gate"] > 0) & (output.extras["gate"] < 1)).all()
        labels = torch.full((20, T), 0 if event else K - 1)
        even = torch.zeros(20, K - 1)
        silent = {"relevance": torch.zeros(20, T), "category": even, "modal_category": even}
        loss = model.loss(output._replace(extras=output.extras | silent), labels).item()
        known = np.log(2) + (2 * np.log(K - 1) if event else 0)
        assert bounds[0] < loss - known < bounds[1]


def test_self_guided_attention_strengthens_by_beta_at_most() -> None:
    audio, _ = clips()
    cells = torch.rand(B, T, 4, 512, dtype=torch.float64)
    found = []
    for beta in (0.0, 0.4):
        model, _ = model_of("cmbs", beta=beta)
        found.append(model.head.get_submodule("watch")(audio, cells)[0])
    assert (found[0] >= 0).all()
    assert ((found[1] >= found[0]) & (found[1] <= 1.4 * found[0])).all()


def test_the_weak_decoder_finds_background() -> None:
    """Published code holds sigmoid of a probability against one half, which all segments exceed."""
    model, _ = model_of("cmbs", supervision="weak")
    extras = model(*clips(count=40)).extras
    p = torch.sigmoid(extras["relevance"])
    assert ((p > 0.5).any() and (p <= 0.5).any()).item()
    assert (torch.sigmoid(p) > 0.5).all()


@pytest.mark.parametrize("segments", [1, 3])
def test_a_clip_may_have_fewer_segments_than_are_averaged(segments: int) -> None:
    model, w = model_of("cmbs")
    audio, visual = clips(segments=segments)
    expected = by_hand(w, audio[0].numpy(), visual[0].numpy())["category"]
    np.testing.assert_allclose(numpy(model(audio, visual).extras["category"])[0], expected, rtol=1e-7)
