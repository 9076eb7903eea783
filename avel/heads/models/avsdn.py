"""AVSDN (Lin et al. 2019) as in the code of CPSP's authors: encoders whose last states start a decoder."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from avel.heads.config import HEADS
from avel.heads.models.avel_net import DMRN
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.layout import AGVA_NAMES, Layout, nested
from avel.heads.models.parts import AGVA_MAP, BiLSTM, attend_cells, xavier
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead
from avel.nn import AGVA, mean_over_time

HIDDEN = 256


@HEADS.register("avsdn")
class AVSDN(RelevanceHead):
    """Sequence-to-sequence dual network: the last states of two Bi-LSTMs, fused, start a third one."""

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of AVSDN, trained as CPSP's code trains it."""

        clip_norm: float = 0.1
        epochs: int = 45
        weak_defaults: ClassVar = {"milestones": (5, 20, 40)}

    source = "Lin et al. 2019, as in the code of Zhou et al. 2022"
    published = (
        Published(72.8, "full", VGG, "JustinYuu.github.io, notes on Ramaswamy 2020"),
        Published(66.5, "weak", VGG, "JustinYuu.github.io, notes on Ramaswamy 2020"),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AGVA_MAP,)
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.agva = AGVA(widths.audio, widths.visual, widths.cells) if widths.cells else None
        self.audio, self.visual = BiLSTM(widths.audio), BiLSTM(widths.visual)
        self.fuse = DMRN(128)
        self.decode = BiLSTM(widths.audio + widths.visual)
        self.category, self.relevance = nn.Linear(HIDDEN, widths.classes - 1), nn.Linear(HIDDEN, 1)
        xavier(self.agva, self.category, self.relevance)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), AGVA's weights."""
        visual, extras = attend_cells(self.agva, audio, visual)
        _, (h_a, c_a) = self.audio.unrolled(audio, mask=mask)
        _, (h_v, c_v) = self.visual.unrolled(visual, mask=mask)
        # As published, the same layers fuse hidden and cell states, and the two directions do not mix
        h, c = (
            torch.stack(self.fuse(torch.relu(v), torch.relu(a))).mean(0) for v, a in ((h_v, h_a), (c_v, c_a))
        )
        decoded = torch.relu(self.decode.unrolled(torch.cat((audio, visual), -1), (h, c), mask)[0])
        category = self.category(mean_over_time(decoded, mask))
        return self.decided(self.relevance(decoded).squeeze(-1), category, extras)

    def layout(self) -> Layout:
        """Returns the names in CPSP's code."""
        names = nested("", AGVA_NAMES, own="agva.") | {"decode.lstm": "lstm_a_v"}
        names |= {"audio.lstm": "lstm_audio", "visual.lstm": "lstm_video"}
        names |= {"fuse.U_a": "U_a", "fuse.U_v": "U_v"}
        names |= {"relevance": "event_classifier.0", "category": "category_classifier.0"}
        return Layout("jasongief/CPSP, avsdn_net", names)
