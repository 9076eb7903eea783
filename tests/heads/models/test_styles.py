"""The three reconstructions, after AVRB, MPN and AVT, against loops, and what follows from their outlines."""

import numpy as np
import pytest
import torch

from avel.heads.models.avrb_style import AVRBStyle
from avel.heads.models.mpn_style import BottleneckGate
from tests.heads.by_hand import Weights, below, bilstm, linear, relu, sigmoid, softmax, transformer_layer
from tests.heads.models.rivals import (
    LABELS,
    SIDE,
    B,
    T,
    category_loss,
    clips,
    decide,
    live_parameters,
    model_of,
    numpy,
    relevance_loss,
)

MAPS = pytest.mark.parametrize("maps", [True, False])
LAYER = 4 * 256 * 257 + 2 * 256 * 1024 + 1024 + 256 + 4 * 256
"""Parameters of an attention layer with 1024 units."""


def pooled(visual: np.ndarray) -> np.ndarray:
    return visual.reshape(T, -1, visual.shape[-1]).mean(1)


@MAPS
def test_avrb_style(maps: bool) -> None:
    model, w = model_of("avrb_style", SIDE**2 if maps else 0)
    audio, visual = clips(maps)
    output = model(audio, visual)
    for clip in range(B):
        F_a = bilstm(below(w, "audio.lstm."), audio[clip].numpy())
        F_v = bilstm(below(w, "visual.lstm."), pooled(visual[clip].numpy()))
        rows = []
        for a, v in zip(linear(w, "fuse.audio", F_a), linear(w, "fuse.visual", F_v), strict=True):
            summed = (a * v).reshape(256, 5).sum(1)
            rooted = np.sign(summed) * np.sqrt(np.abs(summed))
            rows.append(rooted / np.linalg.norm(rooted))
        z = np.array(rows)
        alphas = softmax(np.array([row @ z.mean(0) for row in z]))
        expected = linear(w, "classify", np.array([row + s * row for row, s in zip(z, alphas, strict=True)]))
        np.testing.assert_allclose(numpy(output.logits)[clip], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(numpy(output.extras["segments"])[clip].sum(), 1)


class Unchanged(torch.nn.Module):
    """A network that returns its features."""

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return features


def test_segments_that_are_alike_weigh_alike_in_avrb_style() -> None:
    model, _ = model_of("avrb_style")
    head = model.head
    assert isinstance(head, AVRBStyle)
    alike = torch.randn(B, 1, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    head.audio = head.visual = Unchanged()  # type: ignore[assignment]
    z = head.fuse(alike, alike)
    logits = head(alike.expand(-1, T, -1), alike.expand(-1, T, -1)).logits
    torch.testing.assert_close(logits, head.classify((1 + 1 / T) * z).expand(-1, T, -1))


def gated(w: Weights, rows: np.ndarray) -> np.ndarray:
    """One modality of MPN's localisation."""
    F = linear(w, "project", rows)
    channels = linear(w, "channels.2", relu(linear(w, "channels.0", F.mean(0))))
    hidden = relu(F @ w["segments.0.weight"][:, :, 0].T + w["segments.0.bias"])
    for name in ("segments.2", "segments.4"):
        padded, weight = np.pad(hidden, ((1, 1), (0, 0))), w[f"{name}.weight"]
        steps = [sum(weight[:, :, tap] @ padded[t + tap] for tap in range(3)) for t in range(len(rows))]
        hidden = relu(np.array(steps) + w[f"{name}.bias"])
    segments = hidden @ w["segments.6.weight"][:, :, 0].T + w["segments.6.bias"]
    return np.array([F[t] * (1 + sigmoid(channels + segments[t])) for t in range(len(rows))])


@MAPS
def test_mpn_style(maps: bool) -> None:
    model, w = model_of("mpn_style", SIDE**2 if maps else 0)
    audio, visual = clips(maps)
    output = model(audio, visual)
    found = {name: numpy(values) for name, values in output.extras.items()}
    for clip in range(B):
        x, y, part = audio[clip].numpy(), pooled(visual[clip].numpy()), below(w, "co_attention.")
        a, v = linear(part, "audio", x), linear(part, "visual", y)
        a, v = (transformer_layer(below(part, f"self_{m}."), z, z)[0] for m, z in (("a", a), ("v", v)))
        both_a = transformer_layer(below(part, "cross_a."), a, v)[0]
        both_v = transformer_layer(below(part, "cross_v."), v, a)[0]
        category = linear(w, "category", np.concatenate((both_a.mean(0), both_v.mean(0))))
        local = np.concatenate((gated(below(w, "gate_a."), x), gated(below(w, "gate_v."), y)), 1)
        np.testing.assert_allclose(found["category"][clip], category, rtol=1e-7)
        np.testing.assert_allclose(found["relevance"][clip], linear(w, "relevance", local)[:, 0], rtol=1e-7)
    decided = decide(found["relevance"], found["category"])
    assert (numpy(output.logits).argmax(-1) == decided).all()
    expected = relevance_loss(found["relevance"], LABELS.numpy())
    expected += category_loss(found["category"], LABELS.numpy())
    assert model.loss(output, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_mpn_style_learns_what_and_when_apart() -> None:
    for taught, untouched in (("category", "gate_"), ("relevance", "co_attention.")):
        model, _ = model_of("mpn_style")
        model(*clips()).extras[taught].sum().backward()
        trained = {name for name, weight in model.head.named_parameters() if weight.grad is not None}
        assert trained
        assert not [name for name in trained if name.startswith(untouched)]


def test_mpn_style_gates_strengthen_at_most_twofold() -> None:
    torch.manual_seed(0)
    gate = BottleneckGate(8)
    features = torch.randn(B, T, 8)
    ratio = gate(features) / gate.project(features)
    assert ((ratio > 1) & (ratio < 2)).all()


@MAPS
def test_avt_style(maps: bool) -> None:
    model, w = model_of("avt_style", SIDE**2 if maps else 0)
    audio, visual = clips(maps)
    logits = numpy(model(audio, visual).logits)
    for clip in range(B):
        a = linear(w, "audio", audio[clip].numpy())
        cells = linear(w, "visual", visual[clip].numpy().reshape(T, -1, visual.shape[-1]))
        hidden = []
        for t in range(T):
            before, after = cells[max(t - 1, 0)].mean(0), cells[min(t + 1, T - 1)].mean(0)
            tokens = np.array([a[t], before, after, *cells[t]])
            mixed = transformer_layer(below(w, "segment."), tokens, tokens)[0]
            alphas = softmax(np.array([mixed[0] @ cell / 16 for cell in mixed[3:]]))
            attended = sum(alpha * cell for alpha, cell in zip(alphas, mixed[3:], strict=True))
            merged = linear(w, "merge", np.concatenate((mixed[0], attended)))
            angles = [t / 10_000 ** (i / 256) for i in range(0, 256, 2)]
            hidden.append(merged + np.array([f(angle) for angle in angles for f in (np.sin, np.cos)]))
        rows = np.array(hidden)
        expected = linear(w, "classify", transformer_layer(below(w, "time."), rows, rows)[0])
        np.testing.assert_allclose(logits[clip], expected, rtol=1e-5, atol=1e-6)  # float32 positions


def test_avt_style_sees_cells_without_their_places_but_segments_with_theirs() -> None:
    model, _ = model_of("avt_style")
    audio, maps = clips()
    output = model(audio, maps)
    torch.testing.assert_close(model(audio, maps.flip(2, 3)).logits, output.logits)
    assert not torch.allclose(model(audio.flip(1), maps.flip(1)).logits, output.logits.flip(1))
    for name in ("cells", "over_time"):
        torch.testing.assert_close(output.extras[name].sum(-1), torch.ones(B, T, dtype=torch.float64))


def test_parameters() -> None:
    lstms = sum(2 * (512 * (width + 128) + 1024) for width in (128, 512))
    assert live_parameters("avrb_style") == lstms + 2 * 256 * 1280 + 257 * 29
    projections = 129 * 256 + 513 * 256
    gate = 257 * 16 + 17 * 256 + 257 * 16 + 2 * (3 * 16 * 16 + 16) + 17
    mpn = projections + 4 * LAYER + 513 * 28 + projections + 2 * gate + 513
    assert live_parameters("mpn_style") == mpn
    assert live_parameters("avt_style") == projections + 2 * LAYER + 513 * 256 + 257 * 29
