"""CMRAN against its published computation written out in loops."""

import numpy as np
import pytest
import torch

from tests.heads.by_hand import Weights, below, linear, relu
from tests.heads.models.relations_by_hand import cross, encoder, gammas, guided, interaction
from tests.heads.models.rivals import (
    D_V,
    LABELS,
    B,
    T,
    assert_as_by_hand,
    assert_order_has_no_effect,
    assert_weak_loss,
    clips,
    event_loss,
    model_of,
)  # fmt: skip


def by_hand(w: Weights, audio: np.ndarray, visual: np.ndarray, n_heads: int) -> dict[str, np.ndarray]:
    """One clip, maps (T, H, W, C) or vectors (T, C)."""
    cells = relu(linear(w, "project.0", visual.reshape(len(audio), -1, D_V)))
    cells = cells * (1 + gammas(below(w, "channels."), audio, cells))[:, None]
    found = {}
    attended = cells[:, 0]
    if visual.ndim == 4:
        attended, found["cells"] = guided(below(w, "cells."), audio, cells)
    a, found["W_av"] = cross(below(w, "cross_a."), audio, encoder(below(w, "encode_v."), attended))
    v, found["W_va"] = cross(below(w, "cross_v."), attended, encoder(below(w, "encode_a."), audio))
    fused = interaction(below(w, "fuse."), v, a, n_heads)
    found["relevance"] = linear(w, "relevance", fused)[:, 0]
    found["category"] = linear(w, "category", fused.max(0)[None])[0]
    return found


@pytest.mark.parametrize("maps", [True, False], ids=["maps", "vectors"])
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_every_step_in_loops(supervision: str, maps: bool) -> None:
    model, w = model_of("cmran", cells=4 if maps else 0, supervision=supervision)
    n_heads = 2 if supervision == "weak" else 4
    assert_as_by_hand(model, maps, lambda a, v: by_hand(w, a, v, n_heads))


def test_the_losses_in_loops() -> None:
    model, _ = model_of("cmran")
    output = model(*clips())
    assert model.loss(output, LABELS).item() == pytest.approx(event_loss(output, LABELS.numpy()), rel=1e-9)
    assert_weak_loss("cmran")


def test_the_order_of_segments_is_not_seen() -> None:
    assert_order_has_no_effect("cmran")


def test_channels_are_only_strengthened() -> None:
    model, _ = model_of("cmran")
    audio, _ = clips()
    cells = torch.rand(B, T, 4, 512, dtype=torch.float64)
    gamma = model.head.get_submodule("channels")(audio, cells)
    assert gamma.shape == (B, T, 1, 512)
    assert ((gamma > 0) & (gamma < 1)).all()


def test_weights_on_the_other_modality_leave_room_for_its_own() -> None:
    model, _ = model_of("cmran")
    extras = model(*clips()).extras
    for name in ("W_av", "W_va"):
        rows = extras[name].sum(-1)
        assert ((rows > 0) & (rows < 1)).all()
    torch.testing.assert_close(extras["cells"].sum(-1), torch.ones(B, T, dtype=torch.float64))
