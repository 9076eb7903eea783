"""Networks of both encoders and heads: audio-guided visual attention; and a check for bfloat16 LSTMs.

Pipeline and heads never import each other, so what both need is here. Of the modules beside it only `device`
may import torch too.
"""

import functools

import torch
from torch import Tensor, nn

from avel.progress import note


class AGVA(nn.Module):
    """Audio-guided visual attention (Tian et al. 2018) over the cells of a visual map."""

    def __init__(self, audio: int, visual: int, cells: int, hidden: int = 512) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Linear(visual, hidden), nn.ReLU())
        self.audio = nn.Sequential(nn.Linear(audio, hidden), nn.ReLU())
        self.video_score = nn.Linear(hidden, cells, bias=False)
        self.audio_score = nn.Linear(hidden, cells, bias=False)
        self.score = nn.Linear(cells, 1, bias=False)

    def forward(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weighted sum of cells: (B, T, D), (B, T, N, C) -> (B, T, C), weights (B, T, N)."""
        # As in the published code, audio gives one value for each cell, added to all scores of that cell
        joined = self.video_score(self.video(cells)) + self.audio_score(self.audio(audio)).unsqueeze(-1)
        scores = self.score(torch.tanh(joined)).squeeze(-1)
        weights = torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return torch.einsum("btn,btnc->btc", weights.to(cells.dtype), cells), weights


@functools.cache
def has_bfloat16_lstm(device: torch.device) -> bool:
    """Returns True if LSTMs run on `device` under autocast to bfloat16; notes it once where they do not.

    Tries one, since only a call shows whether oneDNN or cuDNN has such an LSTM for this processor.
    """
    try:
        _try_bfloat16_lstm(device)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        note(f"{device} has no LSTM in bfloat16 ({reason}): LSTMs are computed in float32")
        return False
    return True


def _try_bfloat16_lstm(device: torch.device) -> None:
    """Trains a small Bi-LSTM and infers with it, whatever mode the caller is in.

    Float32 and bfloat16 inputs take different ways in torch, so it tries both.
    """
    # In a fork of the random state, which belongs to the caller
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True).to(device)
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast(device.type, torch.bfloat16):
                hidden = lstm(torch.zeros(2, 3, 8, device=device, dtype=dtype))[0]
            hidden.float().sum().backward()
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                lstm(torch.zeros(2, 3, 8, device=device, dtype=dtype))
