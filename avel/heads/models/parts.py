"""Pieces that several heads share: the three-layer MLP, the Bi-LSTM."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avel.heads.config import HeadConfig
from avel.nn import has_bfloat16_lstm


@dataclass(frozen=True)
class PaperConfig(HeadConfig):
    """Training as in Section 4.1 of Ran et al.; the number of epochs is not in the paper."""

    lr: float = 1e-4
    lr_decay: float = 0.98
    lr_decay_every: int = 10
    batch_size: int = 128
    epochs: int = 300


def at_least_float32(values: Tensor) -> Tensor:
    """Returns bfloat16 as float32, since its three digits are too few for a softmax or a loss."""
    return values.float() if values.dtype == torch.bfloat16 else values


class ClassifierMLP(nn.Sequential):
    """Three layers D-128-64-K, the classification layer of Figure 4: (..., D) -> (..., K)."""

    def __init__(self, width: int, classes: int) -> None:
        first, second = nn.Linear(width, 128), nn.Linear(128, 64)
        super().__init__(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), nn.Linear(64, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Returns scores of every class: (..., D) -> (..., K)."""
        # Flatten to 2-D first: a 3-D Linear returns a view, and in-place ReLU on it would copy.
        scores: Tensor = super().forward(features.flatten(0, -2))  # type: ignore[no-untyped-call]
        return scores.view(*features.shape[:-1], scores.shape[-1])


def lstm_states(lstm: nn.LSTM, features: Tensor, initial: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Hidden states of an LSTM at every segment: (B, T, D) -> (B, T, H).

    Under autocast to bfloat16 it computes in bfloat16 where the device has such an LSTM, else in float32.
    """
    device = features.device
    if torch.is_autocast_enabled(device.type) and not has_bfloat16_lstm(device):
        with torch.autocast(device.type, enabled=False):
            hidden: Tensor = lstm(features.float(), initial)[0]
    else:
        hidden = lstm(features, initial)[0]
    return hidden


class BiLSTM(nn.Module):
    """One bidirectional layer, 128 per direction: (B, T, D) -> (B, T, 256)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, 128, batch_first=True, bidirectional=True)

    def forward(self, features: Tensor) -> Tensor:
        """Hidden states of both directions: (B, T, D) -> (B, T, 256)."""
        return lstm_states(self.lstm, features)


def xavier(module: nn.Module) -> None:
    """Draws the weights of a Linear layer as Glorot & Bengio do, its bias 0; for `apply` to a network."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
