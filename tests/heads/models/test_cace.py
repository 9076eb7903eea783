"""CACE-Net against its published computation written out in loops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avel.heads.models.cace import two_view_contrast
from avel.heads.training.data import read_data
from avel.heads.training.fit import Training, make_model
from avel.heads.training.trials import Trial
from avel.stores.features import FeatureCache
from tests.heads.by_hand import Weights, below, bilstm, layer_norm, linear, relu, sigmoid, softmax
from tests.heads.models.relations_by_hand import fuse, gated, self_attention, watch
from tests.heads.models.rivals import (
    D_V,
    LABELS,
    B,
    K,
    T,
    assert_as_by_hand,
    category_loss,
    clips,
    event_loss,
    model_of,
    numpy,
    relevance_loss,
)  # fmt: skip
from tests.heads.synthetic import train_config, write_cache


def guidance(w: Weights, audio: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What vision asks of the audio: (T, D), (T, N, 512) -> (T, D), (T, T)."""
    normed = cells
    if cells.shape[1] > 1:
        norm = (w["watch.norm.weight"], w["watch.norm.bias"], 1e-5)
        normed = np.array([layer_norm(m + self_attention(below(w, "relate."), m), *norm) for m in cells])
    g = below(w, "guide.")
    related = audio + self_attention(below(g, "relate."), audio)
    related = layer_norm(related, g["norm.weight"], g["norm.bias"], 1e-5)
    q, k, v = linear(g, "query", normed.mean(1)), linear(g, "key", related), linear(g, "value", related)
    alphas = np.array([softmax(np.array([q[i] @ k[j] for j in range(len(k))])) for i in range(len(q))])
    return alphas @ v, alphas


def by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray, refines: float) -> dict[str, np.ndarray]:
    """One clip, maps (T, H, W, C) or vectors (T, C), without noise."""
    cells = relu(linear(w, "project.0", visual.reshape(len(audio), -1, D_V)))
    v, found = watch(below(w, "watch."), audio, cells, 0.4)
    asked, found["guidance"] = guidance(w, audio, cells)
    a = bilstm(below(w, "audio_lstm.lstm."), audio * (1 + 0.3 * sigmoid(asked)))
    v = bilstm(below(w, "visual_lstm.lstm."), v)
    fused = fuse(w, *gated(w, a, v, found), 4)
    refined = relu(linear(w, "refine.0", fused))
    found["refined"] = found["noisy"] = np.array([row / np.linalg.norm(row) for row in refined])
    found["fused"] = fused + 0.6 * refines * refined
    found["relevance"] = linear(w, "relevance", found["fused"])[:, 0]
    found["category"] = linear(w, "category", fused.max(0)[None])[0] + 0.3 * found["modal_category"]
    return found


@pytest.mark.parametrize("maps", [True, False], ids=["maps", "vectors"])
@pytest.mark.parametrize(("epoch", "refines"), [(25, 0.0), (26, 1.0)])
def test_every_step_in_loops(epoch: int, refines: float, maps: bool) -> None:
    model, w = model_of("cace", cells=4 if maps else 0)
    model.head.begin_epoch(epoch)  # of 200
    assert_as_by_hand(model, maps, lambda a, v: by_hand(w, a, v, refines))


def contrast_by_hand(refined: np.ndarray, noisy: np.ndarray, event: np.ndarray, temperature: float) -> float:
    """The mean over all rows of all clips; (B, T, D), (B, T, D), (B, T)."""
    terms = []
    for q, k, happens in zip(refined, noisy, event, strict=True):
        rows, n = np.concatenate((q, k)), len(q)
        for i in range(2 * n):
            alike = [np.exp(rows[i] @ row / temperature) for row in rows]
            positives = [alike[(i + n) % (2 * n)]]
            if happens[i % n]:
                others = [j for j in range(2 * n) if j != i and happens[j % n] and j != (i + n) % (2 * n)]
                positives += [alike[j] for j in others]
            rest = sum(value for j, value in enumerate(alike) if j != i)
            terms.append(-np.log(np.mean(positives) / rest))
    return float(np.mean(terms))


def drawn(count: int, segments: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    rows = torch.randn(2, count, segments, 8, generator=random, dtype=torch.float64)
    refined, noisy = torch.nn.functional.normalize(rows, dim=-1)
    return refined, noisy


def test_the_contrast_in_loops() -> None:
    refined, noisy = drawn(3, 4)
    event = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    for temperature in (0.5, 0.05):
        found = two_view_contrast(refined, noisy, event, temperature).item()
        expected = contrast_by_hand(refined.numpy(), noisy.numpy(), event.numpy(), temperature)
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("event", "expected"), [(True, 19.0), (False, 19.0)])
def test_identical_segments_are_as_alike_as_they_can_be(event: bool, expected: float) -> None:
    """Ten segments make twenty rows, each with nineteen others; in float32, at the published temperature."""
    rows = torch.nn.functional.normalize(torch.ones(2, 10, 8), dim=-1)
    loss = two_view_contrast(rows, rows, torch.full((2, 10), event), 0.01)
    assert loss.item() == pytest.approx(np.log(expected), rel=1e-5)


def test_event_rows_have_all_event_rows_for_positives_others_their_twin() -> None:
    """Rows in directions of their own: a row's mean similarity to its positives counts the equal ones."""
    directions = torch.eye(5, dtype=torch.float64)[None]
    event = torch.tensor([[True, True, True, False, False]])
    rest = np.e + 8  # the twin, and eight rows at right angles
    positives = [*3 * [(np.e + 4) / 5], *2 * [np.e]]  # 2 n - 1 = 5, or 1
    expected = np.mean([-np.log(value / rest) for value in positives])
    assert two_view_contrast(directions, directions, event, 1.0).item() == pytest.approx(expected, rel=1e-9)


def test_the_contrast_has_a_gradient_in_float32() -> None:
    refined, noisy = (values.float().requires_grad_() for values in drawn(2, 6))
    event = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    two_view_contrast(refined, noisy, event, 0.01).backward()
    for values in (refined, noisy):
        assert values.grad is not None
        assert values.grad.isfinite().all()
        assert values.grad.abs().sum() > 1e-2


@pytest.mark.parametrize("refines", [False, True])
def test_the_loss_in_loops(refines: bool) -> None:
    model, _ = model_of("cace", contrast_loss=0.7, temperature=0.1)
    model.head.begin_epoch(200 if refines else 1)
    output, labels = model(*clips()), LABELS.numpy()
    found = {name: numpy(values) for name, values in output.extras.items()}
    expected = event_loss(output, labels)
    expected += relevance_loss(found["gate"], labels) + category_loss(found["modal_category"], labels)
    if refines:
        expected += 0.7 * contrast_by_hand(found["refined"], found["noisy"], labels < K - 1, 0.1)
    assert model.loss(output, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_without_psi_the_audio_is_as_it_came() -> None:
    audio, visual = clips()
    read = []
    for psi in (0.0, 0.3):
        model, _ = model_of("cace", psi=psi)
        lstm = model.head.get_submodule("audio_lstm")
        lstm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        model(audio, visual)
    assert torch.equal(read[0], audio)
    ratio = read[1] / audio
    assert ((ratio > 1) & (ratio < 1.3)).all()


def test_twins_are_noisy_in_training_alone() -> None:
    model, _ = model_of("cace", dropout=0, input_dropout=0, cell_dropout=0, fusion_dropout=0)
    inputs = clips()
    still = model(*inputs).extras
    assert torch.equal(still["refined"], still["noisy"])
    torch.manual_seed(0)
    moved = model.train()(*inputs).extras
    torch.testing.assert_close(moved["refined"], still["refined"])
    assert (moved["noisy"] - moved["refined"]).norm(dim=-1).min() > 1e-4


def test_training_refines_from_an_eighth_of_the_epochs_on(tmp_path: Path) -> None:
    config = train_config(head="cace", epochs=16, refine_after=0.125)
    cache = FeatureCache.open(write_cache(tmp_path / "c.h5", samples=30))
    data = read_data(cache, config, torch.device("cpu"))
    training = Training([Trial("one", config)], data, torch.device("cpu"))
    start = make_model(Trial("one", config), data).state_dict()["head.refine.0.weight"]
    found = []
    for epoch in (1, 2, 3):
        training.train_epoch(epoch)
        state = training.group.state(0)
        found.append((state["head.refines"].item(), torch.equal(state["head.refine.0.weight"], start)))
    assert found == [(0, True), (0, True), (1, False)]


def test_the_seed_decides_the_noise() -> None:
    model, _ = model_of("cace")
    inputs, found = clips(), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(model.train()(*inputs).extras["noisy"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert found[0].shape == (B, T, 256)
