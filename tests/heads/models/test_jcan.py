"""JCAN against its published computation written out in loops, and what follows from it."""

import numpy as np
import pytest
import torch

from avel.errors import ConfigError
from avel.heads.models.head import HeadOutput, Widths, build_model
from tests.heads.by_hand import Weights, agva, below, bilstm, linear, sigmoid, softmax
from tests.heads.models.small import D_A, D_V, K, T, cells_of, clips, count_on_ave, model_of
from tests.heads.synthetic import train_config


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def res_lstm(w: Weights, rows: np.ndarray) -> np.ndarray:
    first = w["first"][:, :, 0]
    states = bilstm(below(w, "lstm.lstm."), rows, layers=2, first=(first[0], first[1]))
    return unit(linear(w, "merge", np.concatenate((rows, states), 1)))


def attended(w: Weights, x: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """One stream's update: K mixes the segments of each feature, S holds feature with joint feature."""
    mixed = np.array([w["time.weight"] @ x[:, c] + w["time.bias"] for c in range(512)])
    similar = np.tanh(mixed @ joint / np.sqrt(1024))
    found = np.maximum(np.tanh(linear(w, "value", x) @ similar), 0)
    return np.asarray(x + np.maximum(linear(w, "out", found), 0))


@pytest.mark.parametrize("maps", [True, False])
def test_jcan(maps: bool) -> None:
    model, w = model_of("jcan", maps)
    audio, visual = clips(maps)
    logits = model(audio, visual).logits.detach().numpy()
    for clip in range(len(audio)):
        a = res_lstm(below(w, "audio."), unit(audio[clip].numpy()))
        v = unit(cells_of(visual[clip]) if maps else visual[clip].numpy())
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
    output, labels = model(*clips()), torch.tensor([[0, 1, 3, 3, 2], [1, 1, 1, 0, 3]])
    logits = output.logits.detach().numpy()
    terms = []
    for row, target in zip(logits.reshape(-1, K), labels.flatten().tolist(), strict=True):
        for k, score in enumerate(softmax(row)):
            terms.append(-np.log(sigmoid(score if k == target else -score)))
    assert model.loss(output, labels).item() == pytest.approx(np.mean(terms), rel=1e-10)


def test_the_loss_has_a_floor_because_it_is_of_the_softmax() -> None:
    with torch.device("meta"):
        head = build_model(train_config(head="jcan"), Widths(128, 512, 29, 49, 10), 0)
    labels = torch.arange(20).reshape(2, 10)
    sure = HeadOutput(1e3 * torch.nn.functional.one_hot(labels, 29).double(), {})
    even = HeadOutput(torch.zeros(2, 10, 29, dtype=torch.float64), {})
    assert head.loss(sure, labels).item() == pytest.approx((np.log1p(np.exp(-1)) + 28 * np.log(2)) / 29)
    assert head.loss(even, labels).item() == pytest.approx(0.70935, abs=1e-5)


def test_parameters_are_the_published_ones() -> None:
    assert count_on_ave("jcan") == 22_776_510


def test_weights_start_as_published() -> None:
    model = build_model(train_config(head="jcan"), Widths(D_A, D_V, K, 4, T), 0)
    joint = model.get_parameter("head.joint.0.joint.weight")
    bound = np.sqrt(6 / 2048)
    assert bound > joint.abs().max().item() > 0.99 * bound
    assert not model.get_parameter("head.joint.0.joint.bias").any()
    assert not model.get_parameter("head.audio.first").any()


def test_other_lengths_are_refused() -> None:
    model, _ = model_of("jcan")
    with pytest.raises(ConfigError, match="built for 5 segments, the clips have 6"):
        model(*clips(segments=6))
    with pytest.raises(ConfigError, match="weights over time"):
        model_of("jcan", segments=0)
