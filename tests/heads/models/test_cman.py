"""CMAN against its description written out in loops, and what follows from it."""

import numpy as np
import pytest
import torch

from avel.heads.models.cman import SentinelAttention
from tests.heads.by_hand import Weights, below, linear, sigmoid, softmax
from tests.heads.models.rivals import SIDE, B, T, clips, live_parameters, model_of, numpy


def where(w: Weights, audio: np.ndarray, cells: np.ndarray) -> np.ndarray:
    rows = []
    for a, m in zip(linear(w, "audio", audio), cells, strict=True):
        mapped = linear(w, "visual", m)
        cosines = [cell @ a / np.linalg.norm(cell) / np.linalg.norm(a) for cell in mapped]
        rows.append(sum(alpha * cell for alpha, cell in zip(softmax(np.array(cosines)), m, strict=True)))
    return np.array(rows)


def contextual(w: Weights, x: np.ndarray) -> np.ndarray:
    rows = []
    context = linear(w, "context", x.mean(0))
    for own in linear(w, "own", x):
        gate = sigmoid(linear(w, "gate_own", own) + linear(w, "gate_context", context))
        rows.append((1 - gate) * own + gate * context)
    return np.array(rows)


def when(w: Weights, x: np.ndarray) -> np.ndarray:
    q, k, v = contextual(below(w, "query."), x), contextual(below(w, "key."), x), linear(w, "value", x)
    rows = []
    for i in range(len(x)):
        alphas = softmax(np.array([q[i] @ k[j] / 16 for j in range(len(x))]))
        rows.append(sum(alphas[j] * v[j] for j in range(len(x))))
    return linear(w, "out", np.array(rows))


def which(w: Weights, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (T, 256), weights on the other modality (T, T), on the sentinel (T,)."""
    hidden = cell = np.zeros(256)
    vectors, maps, betas = [], [], []
    for x in own:
        gate = sigmoid(linear(w, "gate_step", x) + linear(w, "gate_recur", hidden))
        i, f, g, o = np.split(linear(w, "step", x) + linear(w, "recur", hidden), 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        sentinel = gate * np.tanh(cell)
        asked = linear(w, "attend_own", hidden)
        scores = [linear(w, "score", np.tanh(linear(w, "attend_other", a) + asked))[0] for a in other]
        trust = linear(w, "score", np.tanh(linear(w, "attend_sentinel", sentinel) + asked))[0]
        alphas = softmax(np.array(scores))
        beta = softmax(np.array([*scores, trust]))[-1]
        found = sum(alpha * a for alpha, a in zip(alphas, other, strict=True))
        vectors.append(beta * sentinel + (1 - beta) * found + hidden)
        maps.append(alphas)
        betas.append(beta)
    return np.array(vectors), np.array(maps), np.array(betas)


@pytest.mark.parametrize("maps", [True, False])
def test_cman(maps: bool) -> None:
    model, w = model_of("cman", SIDE**2 if maps else 0)
    audio, visual = clips(maps)
    output = model(audio, visual)
    for clip in range(B):
        a, v = audio[clip].numpy(), visual[clip].numpy()
        v = where(below(w, "where."), a, v.reshape(T, SIDE**2, -1)) if maps else v
        A, V = when(below(w, "when_a."), a), when(below(w, "when_v."), v)
        h_a, W_av, beta_a = which(below(w, "which_a."), A, V)
        h_v, W_va, beta_v = which(below(w, "which_v."), V, A)
        expected = linear(w, "classify", np.concatenate((h_v, h_a), 1))
        np.testing.assert_allclose(numpy(output.logits)[clip], expected, rtol=1e-8, atol=1e-11)
        found = {name: numpy(values)[clip] for name, values in output.extras.items()}
        for name, by_hand in (
            ("W_av", W_av), ("W_va", W_va), ("sentinel_a", beta_a), ("sentinel_v", beta_v)
        ):  # fmt: skip
            np.testing.assert_allclose(found[name], by_hand, rtol=1e-8)


def test_attention_sums_to_1_and_the_sentinel_never_has_all_nor_nothing() -> None:
    model, _ = model_of("cman")
    extras = model(*clips()).extras
    for name in ("where", "when_a", "when_v", "W_av", "W_va"):
        torch.testing.assert_close(extras[name].sum(-1), torch.ones(B, T, dtype=torch.float64))
    for name in ("sentinel_a", "sentinel_v"):
        assert ((extras[name] > 0) & (extras[name] < 1)).all()


def test_a_louder_sound_comes_from_the_same_place() -> None:
    model, _ = model_of("cman")
    audio, maps = clips()
    plain, louder = model(audio, maps).extras, model(5 * audio, maps).extras
    torch.testing.assert_close(louder["where"], plain["where"])
    assert not torch.allclose(louder["W_av"], plain["W_av"])


def test_a_sentinel_that_is_trusted_shuts_the_other_modality_out() -> None:
    torch.manual_seed(0)
    which = SentinelAttention().double()
    own, other, another = torch.randn(3, B, T, 256, dtype=torch.float64)
    assert not torch.allclose(which(own, other)[0], which(own, another)[0])
    with torch.no_grad():  # the sentinel scores 2560 tanh(10), the other modality 0
        for part in (which.attend_other, which.attend_own, which.attend_sentinel):
            part.weight.zero_()
        which.attend_sentinel.bias.fill_(10)
        which.score.weight.fill_(10)
    vectors, _, beta = which(own, other)
    torch.testing.assert_close(beta, torch.ones(B, T, dtype=torch.float64))
    torch.testing.assert_close(vectors, which(own, another)[0])


def test_parameters() -> None:
    width, d = {"audio": 128, "visual": 512}, 256
    where = sum(d * n for n in width.values())
    when = sum(5 * d * n + 4 * d + d * d + d for n in width.values())
    which = 2 * (8 * d * d + 4 * d + 2 * d * d + d + 3 * d * d + d + d)
    assert live_parameters("cman") == where + when + which + (2 * d + 1) * 29
