"""AVSDN as CPSP's code has it, written out in loops."""

import numpy as np
import pytest
import torch

from tests.heads.by_hand import Weights, agva, below, linear, lstm_states, relu
from tests.heads.models.rivals import (
    D_V,
    LABELS,
    B,
    T,
    assert_as_by_hand,
    event_loss,
    instance_loss,
    model_of,
    numpy,
)  # fmt: skip

States = list[tuple[np.ndarray, np.ndarray]]


def last_states(w: Weights, rows: np.ndarray) -> States:
    """The last hidden and cell state, of the forward and of the backward direction."""
    directions = (lstm_states(w, "", rows), lstm_states(w, "_reverse", rows[::-1]))
    return [(hidden[-1], cells[-1]) for hidden, cells in directions]


def fuse(w: Weights, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    u_a = linear(w, "U_a.2", np.tanh(linear(w, "U_a.0", p)))
    u_v = linear(w, "U_v.2", np.tanh(linear(w, "U_v.0", q)))
    u = (u_a + u_v) / 2
    return np.asarray((np.tanh(p + u) + np.tanh(q + u)) / 2)


def by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray) -> dict[str, np.ndarray]:
    """One clip, maps (T, H, W, C) or vectors (T, C)."""
    pooled = visual
    if visual.ndim == 4:
        pooled = agva(below(w, "agva."), audio, visual.reshape(T, -1, D_V))
    starts = [
        tuple(fuse(below(w, "fuse."), relu(p), relu(q)) for p, q in zip(from_audio, from_visual, strict=True))
        for from_audio, from_visual in zip(
            last_states(below(w, "audio.lstm."), audio),
            last_states(below(w, "visual.lstm."), pooled),
            strict=True,
        )
    ]
    joined, d = np.concatenate((audio, pooled), 1), below(w, "decode.lstm.")
    forward, _ = lstm_states(d, "", joined, (starts[0][0], starts[0][1]))
    backward, _ = lstm_states(d, "_reverse", joined[::-1], (starts[1][0], starts[1][1]))
    decoded = relu(np.concatenate((forward, backward[::-1]), 1))
    return {
        "relevance": linear(w, "relevance", decoded)[:, 0],
        "category": linear(w, "category", decoded.mean(0)[None])[0],
    }


@pytest.mark.parametrize("maps", [True, False], ids=["maps", "vectors"])
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_every_step_in_loops(supervision: str, maps: bool) -> None:
    model, w = model_of("avsdn", cells=4 if maps else 0, supervision=supervision)
    output = assert_as_by_hand(model, maps, lambda a, v: by_hand(w, a, v))
    if supervision == "weak":
        e, z = numpy(output.extras["relevance"]), numpy(output.extras["category"])
        found, expected = model.loss(output, torch.tensor([2, 1])), instance_loss(e, z, [2, 1])
    else:
        found, expected = model.loss(output, LABELS), event_loss(output, LABELS.numpy())
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_decoder_starts_within_one() -> None:
    model, _ = model_of("avsdn")
    fuse = model.head.get_submodule("fuse")
    p, q = 3 * torch.randn(2, 2, B, 128, dtype=torch.float64)
    assert (torch.stack(fuse(p, q)).abs() < 1).all()


def test_modalities_can_be_swapped_with_their_layers() -> None:
    model, _ = model_of("avsdn")
    fuse = model.head.get_submodule("fuse")
    p, q = torch.randn(2, 2, B, 128, dtype=torch.float64)
    straight = sum(fuse(p, q))
    assert not torch.allclose(sum(fuse(q, p)), straight)
    state = fuse.state_dict()
    swaps = {"U_a": "U_v", "U_v": "U_a"}
    fuse.load_state_dict({swaps[name[:3]] + name[3:]: value.clone() for name, value in state.items()})
    torch.testing.assert_close(sum(fuse(q, p)), straight)


def test_agva_starts_as_xavier_drew_it() -> None:
    model, _ = model_of("avsdn")
    limit = 2 * np.sqrt(6 / (D_V + 512))  # the model's weights are doubled
    largest = model.head.get_submodule("agva").get_parameter("video.0.weight").abs().max().item()
    assert 0.97 * limit < largest <= limit
