"""CPSP against its published computation written out in loops; its losses as they are meant."""

import numpy as np
import pytest
import torch

from avel.heads.models.cpsp import segment_contrast, video_contrast
from tests.heads.by_hand import Weights, agva, below, bilstm, layer_norm, linear, relu
from tests.heads.models.rivals import (
    D_V,
    LABELS,
    B,
    K,
    T,
    assert_as_by_hand,
    clips,
    event_loss,
    instance_loss,
    model_of,
    numpy,
)  # fmt: skip

PLAIN = {"pair_loss": 0.0, "segment_loss": 0.0, "video_loss": 0.0}


def pairs(w: Weights, v: np.ndarray, a: np.ndarray) -> np.ndarray:
    """beta^va, scaled products that are not negative: (T, 256), (T, 256) -> (T, T)."""
    v2, a1 = relu(linear(w, "v2.0", v)), relu(linear(w, "a1.0", a))
    return np.array([[max(0.0, float(v2[i] @ a1[j]) / 16) for j in range(T)] for i in range(T)])


def cut(beta: np.ndarray, threshold: float) -> np.ndarray:
    gamma = np.zeros_like(beta)
    for i, row in enumerate(beta):
        normalised = row / (row.sum() + 1e-8)
        kept = np.array([value if value > threshold else 0.0 for value in normalised])
        gamma[i] = kept / (kept.sum() + 1e-8)
    return gamma


def by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """One clip, maps (T, H, W, C) or vectors (T, C)."""
    projected = linear(w, "audio.1", linear(w, "audio.0", audio))
    attended = visual
    if visual.ndim == 4:
        attended = agva(below(w, "agva."), projected, visual.reshape(T, -1, D_V))
    a = bilstm(below(w, "audio_lstm.lstm."), projected)
    v = bilstm(below(w, "visual_lstm.lstm."), linear(w, "visual.1", linear(w, "visual.0", attended)))
    p = below(w, "propagate.")
    beta = pairs(p, v, a)
    gamma_va, gamma_av = cut(beta, threshold), cut(beta.T, threshold)
    new_v = v + gamma_va @ relu(linear(p, "a2.0", a))
    new_a = a + gamma_av @ relu(linear(p, "v1.0", v))
    new_v, new_a = (
        layer_norm(relu(linear(p, name, rows)), p["norm.weight"], p["norm.bias"], 1e-6)
        for name, rows in (("out_v.0", new_v), ("out_a.0", new_a))
    )
    fused = (new_v + new_a) / 2
    return {
        "gamma_va": gamma_va,
        "similarity": np.array([unit(x) @ unit(y) for x, y in zip(new_v, new_a, strict=True)]),
        "fused": np.array([unit(row) for row in fused]),
        "relevance": linear(w, "relevance", fused)[:, 0],
        "category": linear(w, "category", fused.mean(0)[None])[0],
    }


def unit(row: np.ndarray) -> np.ndarray:
    return np.asarray(row / np.linalg.norm(row))


@pytest.mark.parametrize("maps", [True, False], ids=["maps", "vectors"])
@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({}, 0.099),
        ({"supervision": "weak"}, 0.095),
        ({"threshold": 0.21}, 0.21),
        ({"supervision": "weak", "threshold": 0.21}, 0.21),
    ],
    ids=["full", "weak", "full, cut higher", "weak, cut higher"],
)
def test_every_step_in_loops(settings: dict[str, object], threshold: float, maps: bool) -> None:
    model, w = model_of("cpsp", cells=4 if maps else 0, **settings)
    assert_as_by_hand(model, maps, lambda a, v: by_hand(w, a, v, threshold))


def pair_by_hand(similarity: np.ndarray, labels: np.ndarray) -> float:
    errors = []
    for row, segments in zip(relu(similarity), labels, strict=True):
        event = (segments < K - 1).astype(float)
        errors += ((row / (row.sum() + 1e-8) - event / (event.sum() + 1e-8)) ** 2).tolist()
    return float(np.mean(errors))


def segments_by_hand(fused: np.ndarray, event: np.ndarray) -> float:
    terms = []
    for rows, happens in zip(fused, event, strict=True):
        for i in range(len(rows)):
            if not happens[i]:
                continue
            alike = [np.exp(rows[i] @ row / 0.6) for row in rows]
            positive = sum(e for e, yes in zip(alike, happens, strict=True) if yes)
            others = [e for e, yes in zip(alike, happens, strict=True) if not yes]
            negative = np.mean(others) if others else 0.0
            terms.append(-np.log(positive / (positive + negative)))
    return float(np.mean(terms))


def videos_by_hand(videos: np.ndarray, categories: list[int], margin: float, n_nearest: int) -> float:
    terms = []
    for i, own in enumerate(categories):
        apart = [float(np.sqrt(((videos[i] - other) ** 2).sum())) for other in videos]
        furthest = max(d for d, c in zip(apart, categories, strict=True) if c == own)
        nearest = sorted(d for d, c in zip(apart, categories, strict=True) if c != own)[:n_nearest]
        terms.append(max(0.0, margin + furthest - float(np.mean(nearest))) if nearest else 0.0)
    return float(np.mean(terms))


def test_the_losses_in_loops() -> None:
    defaults = {"pair_loss": 100.0, "segment_loss": 0.01, "video_loss": 1.0}
    losses = {}
    for name in ("plain", *defaults):
        weights = PLAIN | {key: weight for key, weight in defaults.items() if key == name}
        model, _ = model_of("cpsp", margin=3.0, **weights)
        output = model(*clips())
        losses[name] = model.loss(output, LABELS).item()
    found = {name: numpy(values) for name, values in output.extras.items()}
    labels, fused = LABELS.numpy(), found["fused"]
    plain = event_loss(output, labels)
    assert losses["plain"] == pytest.approx(plain, rel=1e-9)
    pair = 100 * pair_by_hand(found["similarity"], labels)
    assert losses["pair_loss"] - plain == pytest.approx(pair, rel=1e-7)
    segment = 0.01 * segments_by_hand(fused, labels < K - 1)
    assert losses["segment_loss"] - plain == pytest.approx(segment, rel=1e-6)
    video = videos_by_hand(fused.mean(1), [2, 1], 3.0, 3)
    assert video > 0
    assert losses["video_loss"] - plain == pytest.approx(video, rel=1e-7)
    model, _ = model_of("cpsp", margin=3.0)
    together = sum(losses[name] - plain for name in defaults)
    assert model.loss(model(*clips()), LABELS).item() == pytest.approx(plain + together, rel=1e-9)


def test_the_weak_loss_in_loops() -> None:
    model, _ = model_of("cpsp", supervision="weak")
    output = model(*clips(count=6))
    found = {name: numpy(values) for name, values in output.extras.items()}
    categories = [2, 0, 2, 1, 1, 3]  # the last clip holds no event
    assert found["category"].shape == (6, K - 1)
    expected = instance_loss(found["relevance"], found["category"], categories)
    expected += videos_by_hand(found["fused"].mean(1), categories, 0.6, 4)
    assert model.loss(output, torch.tensor(categories)).item() == pytest.approx(expected, rel=1e-9)


def test_rows_of_gamma_sum_to_one_or_zero() -> None:
    for threshold in (0.099, 0.3):
        model, _ = model_of("cpsp", threshold=threshold)
        rows = numpy(model(*clips(count=40)).extras["gamma_va"]).sum(-1).flatten()
        assert all(abs(row) < 1e-9 or abs(row - 1) < 1e-6 for row in rows)
        assert rows.max() > 0.5
    assert rows.min() == 0


def test_above_a_threshold_of_one_the_streams_are_apart() -> None:
    model, _ = model_of("cpsp", cells=0, threshold=1.0)
    propagate = model.head.get_submodule("propagate")
    v = torch.randn(B, T, 256, dtype=torch.float64)
    one, other = (propagate(v, torch.randn(B, T, 256, dtype=torch.float64)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_the_pair_loss_is_nothing_where_similarity_goes_with_the_event() -> None:
    weights = (0.0, 100.0)
    models = [model_of("cpsp", **(PLAIN | {"pair_loss": weight}))[0] for weight in weights]
    output = models[0](*clips())
    output.extras["similarity"] = 0.7 * (LABELS < K - 1).double()
    losses = [model.loss(output, LABELS).item() for model in models]
    assert losses[1] == pytest.approx(losses[0], abs=1e-12)


def test_identical_videos_are_a_margin_too_close() -> None:
    videos = torch.ones(6, 8, dtype=torch.float64, requires_grad=True)
    loss = video_contrast(videos, torch.tensor([0, 0, 1, 1, 2, 2]), 0.2, 3)
    assert loss.item() == pytest.approx(0.2)
    loss.backward()
    assert videos.grad is not None
    assert videos.grad.isfinite().all()


def test_a_batch_of_one_class_has_nothing_to_be_far_from() -> None:
    videos = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    loss = video_contrast(videos, torch.zeros(5, dtype=torch.int64), 0.2, 3)
    assert loss.item() == 0
    loss.backward()
    assert videos.grad is not None
    assert not videos.grad.any()


def test_the_video_loss_in_loops() -> None:
    random = torch.Generator().manual_seed(2)
    videos, categories = torch.randn(9, 4, generator=random, dtype=torch.float64), [0, 0, 0, 1, 1, 2, 3, 3, 2]
    for margin, n_nearest in ((0.2, 3), (0.6, 4), (2.0, 20)):
        found = video_contrast(videos, torch.tensor(categories), margin, n_nearest).item()
        assert found == pytest.approx(videos_by_hand(videos.numpy(), categories, margin, n_nearest), rel=1e-9)


def test_segments_are_contrasted_by_their_own_rows() -> None:
    random = torch.Generator().manual_seed(3)
    fused = torch.nn.functional.normalize(torch.randn(3, 6, 4, generator=random, dtype=torch.float64), dim=-1)
    fused.requires_grad_()
    event = torch.tensor([[1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    loss = segment_contrast(fused, event)
    assert loss.item() == pytest.approx(segments_by_hand(numpy(fused), event.numpy()), rel=1e-9)
    loss.backward()
    assert fused.grad is not None
    assert fused.grad[0].abs().sum() > 1e-3  # the published loss is a constant
    assert not fused.grad[1:].any()


def test_the_segment_loss_is_nothing_without_background() -> None:
    fused = torch.randn(2, 5, 4, dtype=torch.float64)
    assert segment_contrast(fused, torch.ones(2, 5, dtype=torch.float64)).item() == 0


def test_weights_start_as_published() -> None:
    """Xavier's uniform spread is sqrt(6 / (in + out)); PyTorch draws within 1 / sqrt(in)."""
    model, _ = model_of("cpsp")
    w = {
        name: value.abs().max().item() / 2 for name, value in model.head.state_dict().items()
    }  # doubled there
    xavier = {
        "propagate.v1.0.weight": (256, 256),
        "agva.video.0.weight": (D_V, 512),
    }
    for name, (wide, out) in xavier.items():
        limit = np.sqrt(6 / (wide + out))
        assert 0.97 * limit < w[name] <= limit
    for name in ("visual.1.weight", "category.weight"):
        assert 0.97 / np.sqrt(256) < w[name] <= 1 / np.sqrt(256)
