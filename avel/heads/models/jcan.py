"""Recursive joint co-attention (Duan et al. 2021): each modality attends to both, joined."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.errors import ConfigError
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.avel_net import segment_soft_margin
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.layout import AGVA_NAMES, Layout, nested
from avel.heads.models.parts import AGVA_MAP, BiLSTM, at_least_float32, attend_cells, xavier
from avel.nn import AGVA, zero_padding

D = 512


@HEADS.register("jcan")
class JCAN(Head):
    """Residual Bi-LSTMs, AGVA, and recursive joint co-attention; its weights fix the number of segments.

    In a clip that is shorter than others, the weights over time read 0 after its end.
    """

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of JCAN and its training as in its code, but without lowering the rate on plateaus."""

        recursions: int = option(4, "Joint co-attention units, each with its own weights.", low=0, high=16)
        dropout: float = option(
            0.3, "Fraction dropped in training, in co-attention and classifier.", low=0, high=0.99
        )
        lstm_dropout: float = option(
            0.1, "Fraction dropped in training, in the encoders of both streams.", low=0, high=0.99
        )
        lr: float = 1e-4
        epochs: int = 300

    source = "Duan et al. 2021"
    published = (Published(76.2, "full", VGG, "Ran et al. 2022, Table 3"),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AGVA_MAP,)
    takes_differing_lengths = True
    weak = False

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        if not widths.segments:
            raise ConfigError("head 'jcan' needs the number of segments", hint="give Widths(..., segments=T)")
        self.audio = ResLSTM(widths.audio, config.lstm_dropout)
        self.agva = AGVA(D, widths.visual, widths.cells) if widths.cells else None
        self.project = nn.Linear(widths.visual, D)
        self.visual = ResLSTM(D, config.lstm_dropout)
        self.joint = nn.ModuleList(
            JointCoAttention(widths.segments, config.dropout) for _ in range(config.recursions)
        )
        self.decode = ResLSTM(2 * D, 0.0)
        self.classify = nn.Sequential(
            nn.Linear(D, 128), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(128, widths.classes)
        )
        xavier(self)
        for layer in self.modules():
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), AGVA's weights.

        Raises:
            ConfigError: T is another than the head was built for.
        """
        if audio.shape[1] != self.widths.segments:
            raise ConfigError(
                f"head 'jcan' was built for {self.widths.segments} segments, the clips have {audio.shape[1]}",
                hint=f"train it on clips of {audio.shape[1]}",
            )
        a, v = self.audio(unit_length(audio), mask), unit_length(visual)
        v, extras = attend_cells(self.agva, a, v)
        v = self.visual(self.project(v), mask)
        for recursion in self.joint:
            v, a = recursion(v, a, mask)
        return HeadOutput(self.classify(self.decode(torch.cat((v, a), -1), mask)), extras)

    def layout(self) -> Layout:
        """Returns the names in Recursive-joint-co-attention."""
        names = nested("video_attn.attn.", AGVA_NAMES, own="agva.")
        names |= {"project": "video_attn.attn.affine_feat"}
        streams = {"audio": "audio_extract", "visual": "video_extract", "decode": "predict.Joint"}
        for own, theirs in streams.items():
            lstm = {"lstm.lstm": "rnn", "first": "init_hidden", "merge": "linear"}
            names |= nested(f"{theirs}.", lstm, own=f"{own}.")
        for number in range(len(self.joint)):
            unit = f"coattn.dcn_layers.{number}"
            names[f"joint.{number}.joint"] = f"{unit}.dense_coattn.query_linear"
            for place, own in enumerate(("visual", "audio")):
                names |= {
                    f"joint.{number}.{own}.time": f"{unit}.dense_coattn.key{place + 1}_linear",
                    f"joint.{number}.{own}.value": f"{unit}.dense_coattn.value{place + 1}_linear",
                    f"joint.{number}.{own}.out": f"{unit}.linears.{place}.0",
                }
        names |= {"classify.0": "predict.predict.0", "classify.3": "predict.predict.3"}
        states = {f"{own}.first": lambda first: first.view(2, 4, 1, D // 2) for own in streams}
        code = "tuffr5/Recursive-joint-co-attention, DCNWithRCNN with LSTMs"
        return Layout(code, names, changed=states)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns `segment_soft_margin`, as published: (B, T, K), (B, T) -> scalar."""
        return segment_soft_margin(output, labels)


class ResLSTM(nn.Module):
    """Two Bi-LSTM layers with learned initial states; their output and input, joined, at unit length."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.lstm = BiLSTM(width, D // 2, layers=2, dropout=dropout)
        # As published, one row for h and one for c of each layer and direction
        first = nn.init.xavier_uniform_(torch.empty(8, D // 2))
        self.first = nn.Parameter(first.view(2, 4, 1, D // 2))
        self.dropout = nn.Dropout(dropout)
        self.merge = nn.Linear(width + D, D)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encodes to unit length: (B, T, D) -> (B, T, 512)."""
        hidden, cell = self.first.expand(-1, -1, len(features), -1).contiguous()
        states = self.lstm.unrolled(features, (hidden, cell), mask)[0]
        return zero_padding(unit_length(self.merge(self.dropout(torch.cat((features, states), -1)))), mask)


class JointCoAttention(nn.Module):
    """One recursion: each modality attends to the joint features and adds the result to its own."""

    def __init__(self, segments: int, dropout: float) -> None:
        super().__init__()
        self.joint = nn.Linear(2 * D, 2 * D)
        self.visual, self.audio = FeatureAttention(segments, dropout), FeatureAttention(segments, dropout)

    def forward(self, visual: Tensor, audio: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Updates both modalities from the same pair: twice (B, T, 512) -> twice (B, T, 512)."""
        joint = zero_padding(self.joint(torch.cat((visual, audio), -1)), mask)
        visual, audio = self.visual(visual, joint), self.audio(audio, joint)
        return zero_padding(visual, mask), zero_padding(audio, mask)


class FeatureAttention(nn.Module):
    """Attention of one modality to the joint features; the map is between features, 512 x 1024, not T x T."""

    def __init__(self, segments: int, dropout: float) -> None:
        super().__init__()
        self.time = nn.Linear(segments, segments)
        self.value, self.out = nn.Linear(D, D), nn.Linear(2 * D, D)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor, joint: Tensor) -> Tensor:
        """Adds attended features to the modality: (B, T, 512), (B, T, 1024) -> (B, T, 512)."""
        similarity = self.dropout(torch.tanh(self.time(stream.mT) @ joint / math.sqrt(2 * D)))
        values = torch.relu(torch.tanh(self.value(stream) @ similarity))
        attended: Tensor = stream + self.dropout(torch.relu(self.out(values)))
        return attended


def unit_length(vectors: Tensor) -> Tensor:
    """Scales vectors to length 1; zeros stay: (..., D) -> (..., D)."""
    return functional.normalize(at_least_float32(vectors), dim=-1)
