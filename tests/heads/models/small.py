"""Heads on small clips in float64, with their weights as arrays: where the tests of single heads begin."""

import numpy as np
import torch

from avel.heads.catalog import AVE_WIDTHS
from avel.heads.models.head import Model, Widths, build_model
from tests.heads.by_hand import Weights
from tests.heads.synthetic import train_config

B, T, SIDE, D_A, D_V, K = 2, 5, 2, 6, 7, 4


def model_of(
    name: str, maps: bool = True, segments: int = T, supervision: str = "full", **settings: object
) -> tuple[Model, Weights]:
    """A head whose weights are none of them 0, so that no term of a test can vanish unseen."""
    config = train_config(head=name, supervision=supervision, **settings)
    widths = Widths(D_A, D_V, K, SIDE**2 if maps else 0, segments)
    model = build_model(config, widths, seed=4).double().eval()
    random = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=random, dtype=torch.float64)
    return model, {name: value.numpy() for name, value in model.head.state_dict().items()}


def clips(maps: bool = True, segments: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio vectors and visual maps or vectors of two clips."""
    random = torch.Generator().manual_seed(5)
    shape = (B, segments, SIDE, SIDE, D_V) if maps else (B, segments, D_V)
    audio = torch.randn(B, segments, D_A, generator=random, dtype=torch.float64)
    return audio, torch.randn(*shape, generator=random, dtype=torch.float64)


def cells_of(maps: torch.Tensor) -> np.ndarray:
    """The maps of one clip as rows of cells: (T, H, W, C) -> (T, H x W, C)."""
    return maps.flatten(1, 2).numpy()


def count_on_ave(name: str, supervision: str = "full") -> int:
    """Parameters of a head with its defaults on AVE's maps."""
    config = train_config(head=name, supervision=supervision)
    with torch.device("meta"):
        model = build_model(config, AVE_WIDTHS["maps"], 0)
    return sum(weight.numel() for weight in model.parameters())
