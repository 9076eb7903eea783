"""HAN, hybrid attention with attentive MMIL pooling (Tian et al. 2020), for audio-visual video parsing."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avel.config import option
from avel.errors import ConfigError
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import Head, HeadOutput, Widths
from avel.heads.models.parts import at_least_float32, key_padding
from avel.heads.tasks.multi_label import video_cross_entropy
from avel.nn import only_inside

D = 512
TRACKS = 2


@HEADS.register("han")
class HAN(Head):
    """Each modality attends to itself and to the other; its scores of segments are pooled over the clip."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of HAN and its training, as in its code."""

        dropout: float = option(0.1, "Fraction of activations dropped in training.", low=0, high=0.99)
        audio_smoothing: float = option(
            0.0, "How far video labels are moved towards one half in the audio loss.", low=0, high=1
        )
        visual_smoothing: float = option(0.1, "The same in the visual loss.", low=0, high=1)
        lr: float = 3e-4
        lr_decay: float = 0.1
        lr_decay_every: int = 10
        batch_size: int = 16
        epochs: int = 40

    source = "Tian et al. 2020 (video parsing)"
    inputs = ("cnn", "encoded")
    tasks = ("multi_label",)
    takes_differing_lengths = True

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        if widths.tracks != TRACKS:
            raise ConfigError(
                f"head {config.name!r} needs events of one modality alone, and all events here are in both",
                hint="--head mlp, for example",
            )
        classes = widths.classes // TRACKS
        self.audio, self.visual = nn.Linear(widths.audio, D), nn.Linear(widths.visual, D)
        self.attend = HybridAttention(config.dropout)
        self.classify = nn.Linear(D, classes)
        self.temporal = nn.Linear(D, classes) if weak else None
        self.modal = nn.Linear(D, classes) if weak else None

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns scores of audio, then of visual: (B, T, D), (B, T, D) -> logits (B, T, 2 C).

        Under weak supervision a class is in a segment only where it is also in the video: its score is the
        lower one of both. The extra `segments` holds the scores before that.
        """
        f_a, f_v = self.audio(audio), self.visual(visual)
        both = torch.stack((self.attend(f_a, f_v, mask), self.attend(f_v, f_a, mask)), 2)  # (B, T, 2, D)
        segments = at_least_float32(self.classify(both))
        extras = {"segments": segments}
        logits = segments
        if self.temporal is not None and self.modal is not None:
            p = segments.sigmoid()
            scores = at_least_float32(self.temporal(both)).movedim(1, -1)
            over_time = only_inside(scores, mask).softmax(-1).movedim(-1, 1)  # W_tp
            over_modalities = at_least_float32(self.modal(both)).softmax(2)  # W_av
            extras["modalities"] = (over_time * p).sum(1)  # (B, 2, C)
            extras["video"] = (over_time * over_modalities * p).sum((1, 2))  # (B, C)
            logits = torch.minimum(segments, torch.logit(extras["video"], 1e-7)[:, None, None])
        return HeadOutput(logits.flatten(2), extras)

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns the losses of the video, and of each modality by itself: (B, T, 2 C), (B, C) -> scalar.

        A class may be in one modality alone, so each modality's labels are smoothed on their own.
        """
        loss = video_cross_entropy(output.extras["video"], video_labels)
        wanted = video_labels.to(output.logits.dtype)
        for place, smoothing in enumerate((self.config.audio_smoothing, self.config.visual_smoothing)):
            smoothed = wanted * (1 - smoothing) + smoothing / 2
            loss = loss + video_cross_entropy(output.extras["modalities"][:, place], smoothed)
        return loss


class HybridAttention(nn.Module):
    """f + self attention + attention to the other modality, then two layers; shared by both modalities."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(D, 1, dropout=dropout, batch_first=True)
        self.other = nn.MultiheadAttention(D, 1, dropout=dropout, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Dropout(dropout), nn.Linear(D, D))
        self.first, self.second = nn.LayerNorm(D), nn.LayerNorm(D)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns a modality's features after both attentions: twice (B, T, 512) -> (B, T, 512)."""
        padding = key_padding(mask)
        own, _ = self.own(features, features, features, padding, need_weights=False)
        other, _ = self.other(features, others, others, padding, need_weights=False)
        attended = self.first(features + self.dropout(own) + self.dropout(other))
        hybrid: Tensor = self.second(attended + self.dropout(self.layers(attended)))
        return hybrid
