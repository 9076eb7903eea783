"""Networks written out in numpy loops, for tests to compare with; none of it is avel's."""

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def below(weights: Weights, prefix: str) -> Weights:
    """The weights of one part, without its prefix."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def lstm_states(
    w: Weights, suffix: str, steps: np.ndarray, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden and cell states: (T, D) -> twice (T, H), gates in torch's order: input, forget, cell, output."""
    width = w[f"weight_hh_l0{suffix}"].shape[1]
    hidden, cell = start or (np.zeros(width), np.zeros(width))
    states, cells = [], []
    for step in steps:
        gates = w[f"weight_ih_l0{suffix}"] @ step + w[f"bias_ih_l0{suffix}"]
        gates = gates + w[f"weight_hh_l0{suffix}"] @ hidden + w[f"bias_hh_l0{suffix}"]
        i, f, g, o = np.split(gates, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
        cells.append(cell)
    return np.array(states), np.array(cells)


def lstm_direction(w: Weights, suffix: str, steps: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, H)."""
    return lstm_states(w, suffix, steps)[0]


def bilstm(w: Weights, steps: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, 2 H)."""
    forward = lstm_direction(w, "", steps)
    backward = lstm_direction(w, "_reverse", steps[::-1])[::-1]
    return np.concatenate((forward, backward), 1)


def agva(w: Weights, audio: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Audio (T, D), visual cells (T, C, D) -> attended (T, D)."""
    attended = []
    for a, v in zip(audio, cells, strict=True):
        from_audio = w["audio_score.weight"] @ np.maximum(w["audio.0.weight"] @ a + w["audio.0.bias"], 0)
        scores = np.zeros(len(v))
        for cell in range(len(v)):
            projected = np.maximum(w["video.0.weight"] @ v[cell] + w["video.0.bias"], 0)
            joined = np.tanh(w["video_score.weight"] @ projected + from_audio[cell])
            scores[cell] = (w["score.weight"] @ joined)[0]
        alpha = softmax(scores)
        attended.append(sum(alpha[cell] * v[cell] for cell in range(len(v))))
    return np.array(attended)


def linear(w: Weights, name: str, rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0))


def layer_norm(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    return np.array([(r - r.mean()) / np.sqrt(r.var() + eps) * weight + bias for r in rows])


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def multihead(
    w: Weights, queries: np.ndarray, memory: np.ndarray, n_heads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Attention, head by head: (T, D), (S, D) -> (T, D), weights averaged over the heads (T, S)."""
    parts = zip(np.split(w["in_proj_weight"], 3), np.split(w["in_proj_bias"], 3), strict=True)
    q, k, v = (
        rows @ weight.T + bias for rows, (weight, bias) in zip((queries, memory, memory), parts, strict=True)
    )
    width = q.shape[1] // n_heads
    attended, mean_alpha = np.zeros_like(q), np.zeros((len(q), len(memory)))
    for head in range(n_heads):
        own = slice(head * width, (head + 1) * width)
        for t in range(len(q)):
            alpha = softmax(np.array([q[t, own] @ k[s, own] for s in range(len(memory))]) / np.sqrt(width))
            attended[t, own] = sum(alpha[s] * v[s, own] for s in range(len(memory)))
            mean_alpha[t] += alpha / n_heads
    return linear(w, "out_proj", attended), mean_alpha


def transformer_layer(w: Weights, queries: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Post-norm, 4 heads, as `AttentionLayer` names its weights: (T, D), (S, D) -> (T, D), (T, S)."""
    attended, mean_alpha = multihead(below(w, "attention."), queries, memory, 4)
    hidden = layer_norm(queries + attended, w["norm1.weight"], w["norm1.bias"], 1e-5)
    wide = relu(linear(w, "feedforward.0", hidden))
    out = layer_norm(hidden + linear(w, "feedforward.3", wide), w["norm2.weight"], w["norm2.bias"], 1e-5)
    return out, mean_alpha
