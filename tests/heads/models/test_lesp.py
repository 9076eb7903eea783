"""LESP against its published computation written out in loops: network, bank, both losses, decision."""

import math

import numpy as np
import pytest
import torch

from avel.heads.models.head import HeadOutput, Model, build_model
from avel.heads.models.lesp import jensen_shannon
from tests.heads.by_hand import Weights, below, layer_norm, linear, sigmoid, softmax, transformer_layer
from tests.heads.models.rivals import (
    AVE,
    D_A,
    D_V,
    LABELS,
    SIDE,
    B,
    K,
    T,
    category_loss,
    clips,
    cross_entropy,
    model_of,
    numpy,
    relevance_loss,
)
from tests.heads.synthetic import train_config

EVENTS, SIZE = K - 1, 4
HELD = (3, SIZE, 0)
"""Segments in the bank of each event: not full, full, none."""
SIZES = {"bank_size": SIZE}


def with_bank(cells: int = SIDE**2, **settings: object) -> tuple[Model, Weights]:
    """A head whose bank holds some segments, better ones first; the arrays show it as it was then."""
    model, _ = model_of("lesp", cells, **SIZES, **settings)
    random = torch.Generator().manual_seed(9)
    filled = torch.tensor([[slot < held for slot in range(SIZE)] for held in HELD])
    for name, shape in (("bank_audio", (D_A,)), ("bank_visual", (max(cells, 1), D_V))):
        drawn = torch.randn(EVENTS, SIZE, *shape, generator=random, dtype=torch.float64)
        model.head.get_buffer(name).copy_(drawn * filled.view(EVENTS, SIZE, *[1] * len(shape)))
    model.head.get_buffer("bank_score").copy_(torch.tensor([1.9, 1.7, 1.2, 0.8]) * filled)
    return model, {name: value.clone().numpy() for name, value in model.head.state_dict().items()}


def embedded(w: Weights, name: str, rows: np.ndarray) -> np.ndarray:
    hidden = linear(w, f"{name}.0", rows)
    return linear(w, f"{name}.2", np.where(hidden > 0, hidden, 0.01 * hidden))


def convolved(w: Weights, name: str, rows: np.ndarray) -> np.ndarray:
    """Over three segments, zeros beyond the clip: (T, D) -> (T, 256)."""
    padded = np.pad(rows, ((1, 1), (0, 0)))
    weight = w[f"{name}.weight"]
    return np.array(
        [sum(weight[:, :, tap] @ padded[t + tap] for tap in range(3)) for t in range(len(rows))]
    ) + w[f"{name}.bias"]  # fmt: skip


def encoded(w: Weights, audio: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fused, audio and visual vectors of one clip, (T, 256) each, from (T, D) and (T, N, C)."""
    positions = np.zeros((cells.shape[1], 256))
    for place in range(cells.shape[1]):
        for i in range(0, 256, 2):
            angle = place / 10_000 ** (i / 256)
            positions[place, i], positions[place, i + 1] = math.sin(angle), math.cos(angle)
    a, local, means = embedded(w, "embed_a", audio), [], []
    for t, segment in enumerate(cells):
        n = embedded(w, "embed_v", segment) + positions
        n = transformer_layer(below(w, "cells."), n, n)[0]
        local.append(transformer_layer(below(w, "spatial."), a[t : t + 1], n)[0][0])
        means.append(n.mean(0))
    v = np.array(means)
    a, v = (transformer_layer(below(w, f"encode_{m}."), x, x)[0] for m, x in (("a", a), ("v", v)))
    across = transformer_layer(below(w, "temporal."), a, v)[0]
    hidden = convolved(w, "merge.0", np.concatenate((np.array(local), across), 1))
    out = convolved(w, "merge.2", np.where(hidden > 0, hidden, 0.01 * hidden))
    return layer_norm(out, w["norm.weight"], w["norm.bias"], 1e-5), a, v


def recalled(w: Weights) -> dict[int, np.ndarray]:
    """The encoded bank of each event that it holds: what is there, repeated until it is full."""
    found = {}
    for event, held in enumerate(HELD):
        if held:
            slots = [slot % held for slot in range(SIZE)]
            sounds, sights = w["bank_audio"][event][slots], w["bank_visual"][event][slots]
            found[event] = encoded(below(w, "encode."), sounds, sights)[0]
    return found


def evaluated(
    bank: dict[int, np.ndarray], fused: np.ndarray
) -> tuple[dict[int, float], dict[int, np.ndarray]]:
    """Scores of each event that the bank holds, distances (T, M) of each segment from all in it."""
    scores, apart = {}, {}
    for event, entries in bank.items():
        mean = entries.mean(0)
        scores[event] = -np.mean([np.linalg.norm(row - mean) for row in fused]) / 16 / 0.1
        apart[event] = np.array([[np.linalg.norm(row - each) / 16 for each in entries] for row in fused])
    return scores, apart


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_lesp(maps: bool, supervision: str) -> None:
    model, w = with_bank(SIDE**2 if maps else 0, supervision=supervision)
    audio, visual = clips(maps)
    output = model(audio, visual)
    found, bank = {name: numpy(values) for name, values in output.extras.items()}, recalled(w)
    margin = 0.9 if supervision == "weak" else 0.7
    for clip in range(B):
        cells = visual[clip].numpy().reshape(T, -1, D_V)
        F, a, v = encoded(below(w, "encode."), audio[clip].numpy(), cells)
        expected = {
            "fused": F,
            "classifier_relevance": linear(w, "relevance", F)[:, 0],
            "classifier_category": linear(w, "category", F).mean(0),
            "category_a": linear(w, "score_a", a),
            "category_v": linear(w, "score_v", v),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][clip], values, rtol=1e-5, atol=1e-6)  # float32 positions
        scores, apart = evaluated(bank, F)
        for event in bank:
            assert found["prototype"][clip, event] == pytest.approx(scores[event], rel=1e-5)
            np.testing.assert_allclose(found["distance"][clip, :, event], apart[event], rtol=1e-5)
        probability = {
            event: float(np.exp(scores[event]) / np.exp(list(scores.values())).sum()) for event in bank
        }
        if supervision == "weak":
            whole = softmax(expected["classifier_category"])
            probability = {event: probability.get(event, 0.0) + whole[event] for event in range(3)}
        best = max(probability, key=lambda event: probability[event])
        nearest = apart[best].min(1) if best in apart else np.full(T, np.inf)
        decided = [best if sigmoid(margin - nearest[t]) > 0.5 else K - 1 for t in range(T)]
        assert output.logits[clip].argmax(-1).tolist() == decided
    assert (sigmoid(found["relevance"]) <= sigmoid(np.array(margin))).all()


@pytest.mark.parametrize("near", [True, False])
def test_the_bank_decides_what_is_an_event(near: bool) -> None:
    """A clip whose segments are the bank's own is that event throughout; one far from them is background."""
    model, w = with_bank(margin=0.01)
    if near:
        audio, cells = (torch.from_numpy(w[f"bank_{name}"][1:2]) for name in ("audio", "visual"))
        maps = cells.unflatten(2, (SIDE, SIDE))
    else:
        audio, maps = clips(segments=SIZE)
    assert (model(audio, maps).logits.argmax(-1) == (1 if near else K - 1)).all()


def test_an_empty_bank_finds_nothing() -> None:
    model, _ = model_of("lesp", **SIZES)
    assert (model(*clips()).logits.argmax(-1) == K - 1).all()


def test_loss() -> None:
    model, _ = with_bank()
    output, labels = model(*clips()), torch.tensor([[3, 1, 1, 3, 3], [0, 0, 0, 0, 0]])
    found = {name: numpy(values) for name, values in output.extras.items()}
    single, near, inside, outside = [], [], [], []
    for clip, event in enumerate((1, 0)):
        distance = found["distance"][clip, :, event]
        holds = labels[clip].numpy() == event
        for t in range(T):
            both = [cross_entropy(found[name][clip, t], event) for name in ("category_a", "category_v")]
            single.append(sum(both) if holds[t] else 0.0)
        near.append(cross_entropy(found["prototype"][clip], event))
        inside.append(np.mean([max(distance[t]) for t in range(T) if holds[t]]))
        gaps = [max(0.0, 0.7 - min(distance[t])) for t in range(T) if not holds[t]]
        outside.append(np.mean(gaps) if gaps else 0.0)
    expected = relevance_loss(found["classifier_relevance"], labels.numpy())
    expected += category_loss(found["classifier_category"], labels.numpy()) + 0.01 * float(np.mean(single))
    expected += 0.1 * float(np.mean(near)) + 0.1 * float(np.mean(inside) + np.mean(outside))
    assert model.loss(output, labels).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("background", [0.0, 0.6])
def test_weak_loss(background: float) -> None:
    """The first clip holds event 1, in a part of its segments; the second is background."""
    model, _ = with_bank(supervision="weak")
    output = model(*clips())
    fractions = torch.tensor([[0, 1 - background, 0, background], [0, 0, 0, 1]], dtype=torch.float64)
    found = {name: numpy(values) for name, values in output.extras.items()}
    b = sigmoid(found["classifier_relevance"])
    mean = b[0].mean()
    when = -((1 - background) * np.log(mean) + background * np.log(1 - mean) + np.log(1 - b[1].mean())) / B
    single = [cross_entropy(found[name][0, t], 1) for t in range(T) for name in ("category_a", "category_v")]
    distance = found["distance"][0, :, 1]
    inside = sum(b[0, t] * max(distance[t]) for t in range(T)) / T
    outside = sum((1 - b[0, t]) * max(0.0, 0.9 - min(distance[t])) for t in range(T)) / T
    expected = when + cross_entropy(found["classifier_category"][0], 1) + 0.01 * np.sum(single) / (B * T)
    expected += 0.1 * (cross_entropy(found["prototype"][0], 1) + inside + outside)
    assert model.loss(output, fractions).item() == pytest.approx(expected, rel=1e-8)
    if not background:
        assert model.loss(output, torch.tensor([1, 3])).item() == pytest.approx(expected, rel=1e-8)


def test_events_without_a_bank_have_no_loss_on_it() -> None:
    labels = torch.full((B, T), 2)
    losses = []
    for weight in (0.1, 5.0):
        model, _ = with_bank(bank_weight=weight)
        losses.append(model.loss(model(*clips()), labels).item())
    assert losses[0] == losses[1]


def kept(
    bank: list[tuple[float, float]], offers: list[tuple[float, float]], size: int
) -> list[tuple[float, float]]:
    """Scores and audio sums after offers: the best first, each sum once."""
    left: list[tuple[float, float]] = []
    for score, total in sorted(bank + offers, key=lambda pair: -pair[0]):
        if all(abs(total - other) > 1e-12 for _, other in left):
            left.append((score, total))
    return left[:size]


@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_training_offers_each_clips_best_segment_to_the_bank(supervision: str) -> None:
    settings = {"supervision": supervision, "dropout": 0.0, "output_dropout": 0.0}
    model, w = with_bank(**settings)
    model.train()
    audio, maps = clips(count=6)
    audio[4], maps[4] = audio[3], maps[3]  # offered twice, kept once
    labels = torch.tensor([[0, 0, 3, 3, 3], [3, 3, 3, 1, 3], [3] * 5, [0] * 5, [0] * 5, [0, 3, 3, 3, 3]])
    categories = [0, 1, 3, 0, 0, 0]
    output = model(audio, maps)
    model.loss(output, torch.tensor(categories) if supervision == "weak" else labels)
    offers: dict[int, list[tuple[float, float]]] = {0: [], 1: [], 2: []}
    for clip, event in enumerate(categories):
        scores = []
        for t in range(T):
            p, q = (softmax(numpy(output.extras[name])[clip, t]) for name in ("category_a", "category_v"))
            m = (p + q) / 2
            score = 1 - float(np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2
            scores.append(score + float(supervision == "full" and labels[clip, t] < K - 1))
        best = int(np.argmax(scores))
        if event < EVENTS:
            offers[event].append((scores[best], audio[clip, best].sum().item()))
    for event, held in enumerate(HELD):
        old = list(zip(w["bank_score"][event], w["bank_audio"][event].sum(1), strict=True))[:held]
        expected = kept(old, offers[event], SIZE)
        score, sounds = (numpy(model.head.get_buffer(f"bank_{name}"))[event] for name in ("score", "audio"))
        np.testing.assert_allclose(score[: len(expected)], [pair[0] for pair in expected], rtol=1e-7)
        np.testing.assert_allclose(sounds[: len(expected)].sum(1), [pair[1] for pair in expected])
        assert not score[len(expected) :].any()
        assert (np.diff(score) <= 0).all()
        assert score.max() <= 2
    # with each sound its own map
    maps_of = {
        values.sum().item(): maps[clip, t] for clip in range(6) for t, values in enumerate(audio[clip])
    }
    for sounds, cells in zip(model.head.bank_audio, model.head.bank_visual, strict=True):
        for total, found in zip(sounds.sum(1).tolist(), cells, strict=True):
            for own in [view for other, view in maps_of.items() if abs(total - other) < 1e-12]:
                torch.testing.assert_close(found, own.flatten(0, 1))


def test_only_training_changes_the_bank() -> None:
    model, w = with_bank()
    model.loss(model(*clips()), LABELS)
    assert all(np.array_equal(value.numpy(), w[name]) for name, value in model.head.state_dict().items())


def test_the_bank_is_saved_with_the_weights() -> None:
    model, _ = with_bank()
    other, _ = model_of("lesp", **SIZES)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(*clips()).logits, model(*clips()).logits)


def test_loss_of_a_backward_pass_that_follows_the_banks_change() -> None:
    model, _ = with_bank()
    model.train()
    model.loss(model(*clips()), LABELS).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_divergence_is_0_of_equals_and_ln_2_of_opposites() -> None:
    one = torch.tensor([[0.0, 1.0, 2.0], [100.0, 0.0, 0.0]])
    other = torch.tensor([[5.0, 6.0, 7.0], [0.0, 0.0, 100.0]])
    found = jensen_shannon(one, other)
    assert found.tolist() == pytest.approx([0.0, math.log(2)], abs=1e-6)


def test_weak_loss_is_finite_where_the_foreground_is_certain() -> None:
    model, _ = with_bank(supervision="weak")
    output = model(*clips())
    sure = output.extras | {"classifier_relevance": torch.tensor([[-200.0] * T, [200.0] * T]).double()}
    assert model.loss(HeadOutput(output.logits, sure), torch.tensor([1, 3])).isfinite()


@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_parameters_are_the_published_ones(supervision: str) -> None:
    with torch.device("meta"):  # a step of it takes half a minute; the contract sees that all of them learn
        model = build_model(train_config(head="lesp", supervision=supervision), AVE, 0)
    assert sum(weight.numel() for weight in model.parameters()) == 4_857_429
