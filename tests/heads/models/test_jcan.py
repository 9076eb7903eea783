"""JCAN against its published computation written out in loops, and what follows from it."""

import numpy as np
import pytest
import torch

from avel.errors import ConfigError
from avel.heads.models.head import HeadOutput, Model, Widths, build_model
from tests.heads.by_hand import Weights, agva, below, linear, lstm_states, sigmoid, softmax
from tests.heads.models.rivals import D_A, D_V, LABELS, SIDE, K, T, clips, model_of
from tests.heads.synthetic import train_config


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def shaken(cells: int) -> tuple[Model, Weights]:
    """The head with biases and first states that are not 0; the arrays share the memory of its weights."""
    model, w = model_of("jcan", cells)
    random = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=random, dtype=torch.float64)
    return model, w


def res_lstm(w: Weights, rows: np.ndarray) -> np.ndarray:
    states, (hidden, cell) = rows, w["first"][:, :, 0]
    for layer in range(2):
        own = {name.replace(f"l{layer}", "l0"): x for name, x in w.items() if f"_l{layer}" in name}
        own = below(own, "lstm.lstm.")
        starts = [(hidden[n], cell[n]) for n in (2 * layer, 2 * layer + 1)]
        forward = lstm_states(own, "", states, starts[0])[0]
        backward = lstm_states(own, "_reverse", states[::-1], starts[1])[0][::-1]
        states = np.concatenate((forward, backward), 1)
    return unit(linear(w, "merge", np.concatenate((rows, states), 1)))


def attended(w: Weights, x: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """One stream's update: K mixes the segments of each feature, S holds feature with joint feature."""
    mixed = np.array([w["time.weight"] @ x[:, c] + w["time.bias"] for c in range(512)])
    similar = np.tanh(mixed @ joint / np.sqrt(1024))
    found = np.maximum(np.tanh(linear(w, "value", x) @ similar), 0)
    return np.asarray(x + np.maximum(linear(w, "out", found), 0))


@pytest.mark.parametrize("maps", [True, False])
def test_jcan(maps: bool) -> None:
    model, w = shaken(SIDE**2 if maps else 0)
    audio, visual = clips(maps)
    logits = model(audio, visual).logits.detach().numpy()
    for clip in range(len(audio)):
        a = res_lstm(below(w, "audio."), unit(audio[clip].numpy()))
        v = unit(visual[clip].flatten(1, -2).numpy() if maps else visual[clip].numpy())
        v = agva(below(w, "agva."), a, v) if maps else v
        v = res_lstm(below(w, "visual."), linear(w, "project", v))
        for recursion in range(4):
            part = below(w, f"joint.{recursion}.")
            joint = linear(part, "joint", np.concatenate((v, a), 1))
            v, a = (attended(below(part, f"{n}."), x, joint) for n, x in (("visual", v), ("audio", a)))
        merged = res_lstm(below(w, "decode."), np.concatenate((v, a), 1))
        expected = linear(w, "classify.3", np.maximum(linear(w, "classify.0", merged), 0))
        np.testing.assert_allclose(logits[clip], expected, rtol=1e-8, atol=1e-11)


def test_loudness_and_brightness_change_nothing() -> None:
    model, _ = model_of("jcan")
    audio, maps = clips()
    scaled = model(3 * audio, 0.2 * maps).logits
    torch.testing.assert_close(scaled, model(audio, maps).logits, rtol=1e-9, atol=1e-12)


def test_segments_have_their_places() -> None:
    model, _ = model_of("jcan")
    audio, maps = clips()
    order = torch.tensor([2, 0, 1, 4, 3])
    moved = model(audio[:, order], maps[:, order]).logits
    assert (moved - model(audio, maps).logits[:, order]).abs().max() > 1e-3


def test_loss() -> None:
    model, _ = model_of("jcan")
    output, labels = model(*clips()), LABELS
    logits = output.logits.detach().numpy()
    terms = []
    for row, target in zip(logits.reshape(-1, K), labels.flatten().tolist(), strict=True):
        for k, score in enumerate(softmax(row)):
            terms.append(-np.log(sigmoid(score if k == target else -score)))
    assert model.loss(output, labels).item() == pytest.approx(np.mean(terms), rel=1e-10)


def test_the_loss_has_a_lower_bound_because_it_is_of_the_softmax() -> None:
    with torch.device("meta"):
        head = build_model(train_config(head="jcan"), Widths(128, 512, 29, 49, 10), 0)
    labels = torch.arange(20).reshape(2, 10)
    sure = HeadOutput(1e3 * torch.nn.functional.one_hot(labels, 29).double(), {})
    even = HeadOutput(torch.zeros(2, 10, 29, dtype=torch.float64), {})
    assert head.loss(sure, labels).item() == pytest.approx((np.log1p(np.exp(-1)) + 28 * np.log(2)) / 29)
    assert head.loss(even, labels).item() == pytest.approx(0.70935, abs=1e-5)


def test_weights_start_as_published() -> None:
    model = build_model(train_config(head="jcan"), Widths(D_A, D_V, K, 4, T), 0)
    joint = model.get_parameter("head.joint.0.joint.weight")
    bound = np.sqrt(6 / 2048)
    assert bound > joint.abs().max().item() > 0.99 * bound
    assert not model.get_parameter("head.joint.0.joint.bias").any()
    first, bound = model.get_parameter("head.audio.first"), np.sqrt(6 / (8 + 256))
    assert bound > first.abs().max().item() > 0.97 * bound


def test_other_lengths_are_refused() -> None:
    model, _ = model_of("jcan")
    with pytest.raises(ConfigError, match="built for 5 segments, the clips have 6"):
        model(*clips(segments=6))
    with pytest.raises(ConfigError, match="needs the number of segments"):
        model_of("jcan", segments=0)
