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


def lstm_direction(
    w: Weights, suffix: str, steps: np.ndarray, first: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """(T, D) -> (T, H), gates in torch's order: input, forget, cell, output; `first` is hidden and cell."""
    width = w[f"weight_hh_{suffix}"].shape[1]
    hidden, cell = first or (np.zeros(width), np.zeros(width))
    states = []
    for step in steps:
        gates = w[f"weight_ih_{suffix}"] @ step + w[f"bias_ih_{suffix}"]
        gates = gates + w[f"weight_hh_{suffix}"] @ hidden + w[f"bias_hh_{suffix}"]
        i, f, g, o = np.split(gates, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    return np.array(states)


def bilstm(
    w: Weights, steps: np.ndarray, layers: int = 1, first: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """(T, D) -> (T, 2H); `first` is hidden and cell of each layer and direction, (2 layers, H) each."""
    for layer in range(layers):
        starts = [None if first is None else (first[0][n], first[1][n]) for n in (2 * layer, 2 * layer + 1)]
        forward = lstm_direction(w, f"l{layer}", steps, starts[0])
        backward = lstm_direction(w, f"l{layer}_reverse", steps[::-1], starts[1])[::-1]
        steps = np.concatenate((forward, backward), 1)
    return steps


def agva(w: Weights, audio: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Audio (T, D), visual cells (T, C, D) -> attended (T, D)."""
    attended = []
    for a, v in zip(audio, cells, strict=True):
        from_audio = w["audio_score.weight"] @ np.maximum(w["audio.0.weight"] @ a + w["audio.0.bias"], 0)
        scores = np.zeros(len(v))
        for cell in range(len(v)):
            seen = np.maximum(w["video.0.weight"] @ v[cell] + w["video.0.bias"], 0)
            joined = np.tanh(w["video_score.weight"] @ seen + from_audio[cell])
            scores[cell] = (w["score.weight"] @ joined)[0]
        share = softmax(scores)
        attended.append(sum(share[cell] * v[cell] for cell in range(len(v))))
    return np.array(attended)


def linear(w: Weights, name: str, rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0))


def layer_norm(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    return np.array([(r - r.mean()) / np.sqrt(r.var() + eps) * weight + bias for r in rows])
