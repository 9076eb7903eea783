"""The parts that CMRAN, CMBS and CACE-Net share, written out in loops over segments and cells."""

import numpy as np

from tests.heads.by_hand import (
    Weights,
    below,
    layer_norm,
    linear,
    multihead,
    relu,
    sigmoid,
    softmax,
    transformer_layer,
)


def gammas(w: Weights, audio: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Channel attention of each segment: (T, D), (T, N, 512) -> (T, 512)."""
    weights = []
    for a, m in zip(audio, cells, strict=True):
        projected = relu(w["audio.weight"] @ a + w["audio.bias"])
        mean = np.mean([projected * relu(w["visual.weight"] @ cell + w["visual.bias"]) for cell in m], axis=0)
        squeezed = relu(w["squeeze.weight"] @ mean + w["squeeze.bias"])
        weights.append(sigmoid(w["excite.weight"] @ squeezed + w["excite.bias"]))
    return np.array(weights)


def guided(w: Weights, guide: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells pooled under a guide: (T, D), (T, N, 512) -> (T, 512), (T, N)."""
    pooled, alphas = [], []
    for g, m in zip(guide, cells, strict=True):
        asked = relu(w["guide.weight"] @ g + w["guide.bias"])
        scores = []
        for cell in m:
            pair = asked * relu(w["cells.weight"] @ cell + w["cells.bias"])
            scores.append(np.tanh(w["score.weight"][0] @ pair + w["score.bias"][0]))
        alphas.append(softmax(np.array(scores)))
        pooled.append(sum(alpha * cell for alpha, cell in zip(alphas[-1], m, strict=True)))
    return np.array(pooled), np.array(alphas)


def encoder(w: Weights, rows: np.ndarray) -> np.ndarray:
    hidden = linear(w, "project", rows)
    for layer in ("layers.0.", "layers.1."):
        hidden, _ = transformer_layer(below(w, layer), hidden, hidden)
    return hidden


def cross(w: Weights, rows: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query = linear(w, "project", rows)
    hidden, alphas = transformer_layer(below(w, "layer."), query, np.concatenate((other, query)))
    return hidden, alphas[:, : len(other)]


def interaction(w: Weights, one: np.ndarray, other: np.ndarray, n_heads: int) -> np.ndarray:
    both = np.concatenate((other, one))
    attended, _ = multihead(below(w, "attention."), one * other, both, n_heads)
    return layer_norm(one * other + attended, w["norm.weight"], w["norm.bias"], 1e-5)


def self_attention(w: Weights, rows: np.ndarray) -> np.ndarray:
    """Without scaling: (N, D) -> (N, D)."""
    q, k, v = (linear(w, name, rows) for name in ("query", "key", "value"))
    attended = np.zeros_like(v)
    for i in range(len(rows)):
        alpha = softmax(np.array([q[i] @ k[j] for j in range(len(rows))]))
        attended[i] = sum(alpha[j] * v[j] for j in range(len(rows)))
    return attended


def watch(
    w: Weights, audio: np.ndarray, cells: np.ndarray, beta: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Visual attention of CMBS: (T, D), (T, N, 512) -> (T, 512); a vector is one cell."""
    if cells.shape[1] == 1:
        return cells[:, 0] * (1 + gammas(below(w, "channels."), audio, cells)), {}
    norm = (w["norm.weight"], w["norm.bias"], 1e-5)
    related = np.array([layer_norm(m + self_attention(below(w, "relate."), m), *norm) for m in cells])
    weighted = cells * (1 + gammas(below(w, "channels."), audio, related))[:, None]
    attended, by_audio = guided(below(w, "by_audio."), audio, weighted)
    own, by_itself = guided(below(w, "by_itself."), related.mean(1), related)
    return attended * (1 + beta * sigmoid(own)), {"cells": by_audio, "own_cells": by_itself}


def top_mean(scores: np.ndarray, count: int) -> np.ndarray:
    """(T, C) -> (C,)."""
    return np.array([np.mean(sorted(column)[-count:]) for column in scores.T])


def gated(
    w: Weights, audio: np.ndarray, visual: np.ndarray, found: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """CMBS's v and a, each scaled by the other's gate; notes attention, gate and categories in `found`."""
    encoded_a, encoded_v = encoder(below(w, "encode_a."), audio), encoder(below(w, "encode_v."), visual)
    a, found["W_av"] = cross(below(w, "cross_a."), audio, encoded_v)
    v, found["W_va"] = cross(below(w, "cross_v."), visual, encoded_a)
    g_a, g_v = sigmoid(linear(w, "gate_a", encoded_a)), sigmoid(linear(w, "gate_v", encoded_v))
    found["gate"] = (g_a * g_v)[:, 0]
    v, a = v * (1 + 0.1 * g_a), a * (1 + 0.1 * g_v)
    scores = (linear(w, "category_v", v), linear(w, "category_a", a))
    found["modal_category"] = (top_mean(scores[0], 4) + top_mean(scores[1], 4)) / 2
    return v, a


def fuse(w: Weights, v: np.ndarray, a: np.ndarray, n_heads: int) -> np.ndarray:
    """F of CMBS: v asks a, then a asks what came of it."""
    new_v = interaction(below(w, "fuse_v."), v, a, n_heads)
    return np.asarray((new_v + interaction(below(w, "fuse_a."), a, new_v, n_heads)) / 2)
