"""AGVA against AVEL's published computation, written out cell by cell."""

import numpy as np
import torch

from avel.nn import AGVA
from tests.heads.by_hand import agva


def test_attends_as_published() -> None:
    torch.manual_seed(0)
    attention = AGVA(5, 12, 4).double()
    heard, cells = torch.randn(2, 3, 5).double(), torch.randn(2, 3, 4, 12).double()
    named = {name: value.numpy() for name, value in attention.state_dict().items()}
    with torch.no_grad():
        attended, weights = attention(heard, cells)
    for clip in range(2):
        np.testing.assert_allclose(
            attended[clip], agva(named, heard[clip].numpy(), cells[clip].numpy()), rtol=1e-10
        )
    torch.testing.assert_close(torch.einsum("btn,btnc->btc", weights, cells), attended)


def test_weights_are_float32_under_bfloat16() -> None:
    attention = AGVA(5, 12, 4).bfloat16()
    attended, weights = attention(torch.randn(1, 2, 5).bfloat16(), torch.randn(1, 2, 4, 12).bfloat16())
    assert (attended.dtype, weights.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2))
