"""Published networks written out again from their equations, with the names of their state dicts.

They are small: widths, cells and classes are those of the tests. Only names and order of operations matter
here, so dropout is left out.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

D_A, D_V, CELLS, K, T, BANK = 12, 14, 4, 5, 10, 3


def linear(wide: int, out: int) -> nn.Linear:
    return nn.Linear(wide, out, bias=False)


def pair(wide: int, middle: int, out: int) -> nn.Sequential:
    return nn.Sequential(linear(wide, middle), linear(middle, out))


def bilstm(wide: int, hidden: int = 128, layers: int = 1) -> nn.LSTM:
    return nn.LSTM(wide, hidden, layers, batch_first=True, bidirectional=True)


class Guided(nn.Module):
    """Cells weighed by audio, for inheritance: AVEL keeps these layers at the top."""

    def add_layers(self, audio: int, visual: int = D_V, hidden: int = 512) -> None:
        self.affine_audio, self.affine_video = nn.Linear(audio, hidden), nn.Linear(visual, hidden)
        self.affine_v, self.affine_g, self.affine_h = (
            linear(hidden, CELLS),
            linear(hidden, CELLS),
            linear(CELLS, 1),
        )

    def attend(self, audio: Tensor, cells: Tensor) -> Tensor:
        row = self.affine_g(self.affine_audio(audio).relu())
        score = self.affine_h(torch.tanh(self.affine_v(self.affine_video(cells).relu()) + row[..., None]))
        return (score.softmax(-2) * cells).sum(-2)


class Attention(Guided):
    def __init__(self, audio: int, visual: int = D_V) -> None:
        super().__init__()
        self.add_layers(audio, visual)


class AttNet(Guided):
    """AVEL, full and weak."""

    def __init__(self) -> None:
        super().__init__()
        self.add_layers(D_A)
        self.lstm_audio, self.lstm_video = bilstm(D_A), bilstm(D_V)
        self.L1, self.L2 = nn.Linear(512, 64), nn.Linear(64, K)

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        visual = self.lstm_video(self.attend(audio, cells))[0]
        joined = torch.cat((self.lstm_audio(audio)[0], visual), -1)
        return {"logits": self.L2(self.L1(joined.relu()).relu())}


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256))


class ResidualNet(Guided):
    """AVEL's DMRN."""

    def __init__(self) -> None:
        super().__init__()
        self.add_layers(D_A)
        self.lstm_audio, self.lstm_video = bilstm(D_A), bilstm(D_V)
        self.U_v, self.U_a, self.L2 = block(), block(), nn.Linear(256, K)

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        v = self.lstm_video(self.attend(audio, cells))[0]
        a = self.lstm_audio(audio)[0]
        merged = (self.U_v(v) + self.U_a(a)) / 2
        return {"logits": self.L2((torch.tanh(a + merged) + torch.tanh(v + merged)) / 2)}


class Streams(nn.Module):
    def __init__(self, audio: int) -> None:
        super().__init__()
        self.lstm_audio, self.lstm_video = bilstm(audio), bilstm(128)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        return self.lstm_audio(audio)[0], self.lstm_video(visual)[0]


class Propagation(nn.Module):
    def __init__(self, threshold: float, *, again: bool, project: bool) -> None:
        super().__init__()
        self.threshold, self.again, self.project = threshold, again, project
        for name in ("v_L1", "v_L2", "a_L1", "a_L2", *(("v_fc", "a_fc") if project else ())):
            setattr(self, name, linear(256, 256))
        self.layer_norm = nn.LayerNorm(256, eps=1e-6)

    def forward(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        beta = (self.v_L2(v).relu() @ self.a_L1(a).relu().mT / 16).relu()

        def positives(pairs: Tensor) -> Tensor:
            pairs = pairs / (pairs.sum(-1, keepdim=True) + 1e-8)
            pairs = pairs * (pairs > self.threshold)
            return pairs / (pairs.sum(-1, keepdim=True) + 1e-8) if self.again else pairs

        new_v = v + positives(beta) @ self.a_L2(a).relu()
        new_a = a + positives(beta.mT) @ self.v_L1(v).relu()
        if self.project:
            new_v, new_a = self.v_fc(new_v).relu(), self.a_fc(new_a).relu()
        return self.layer_norm(new_a), self.layer_norm(new_v)


class PSPNet(nn.Module):
    """PSP and CPSP under full supervision, CPSP under weak; layers that nothing reads are there as well."""

    def __init__(self, threshold: float, relevance: bool) -> None:
        super().__init__()
        self.fa, self.fv, self.linear_v = pair(D_A, 256, 128), pair(D_V, 256, 128), nn.Linear(D_V, D_A)
        self.attention, self.lstm_a_v = Attention(128), Streams(128)
        self.psp = Propagation(threshold, again=True, project=True)
        self.v_classify, self.a_classify = nn.Sequential(linear(256, 64)), nn.Sequential(linear(256, 64))
        self.L1, self.L2 = linear(256, 64), linear(64, K)
        self.relevance = relevance
        if relevance:
            self.event_classifier = nn.Sequential(nn.Linear(256, 1))
            self.category_classifier = nn.Sequential(nn.Linear(256, K - 1))
        else:
            self.L3, self.L4 = nn.Linear(256, 64), nn.Linear(64, 2)

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        a = self.fa(audio)
        a, v = self.psp(*self.lstm_a_v(a, self.fv(self.attention.attend(a, cells))))
        fused = (a + v) / 2
        if self.relevance:
            category = self.category_classifier(fused.mean(1))
            return {"relevance": self.event_classifier(fused)[..., 0], "category": category}
        return {"logits": self.L2(self.L1(fused).relu())}


class WeakPSPNet(nn.Module):
    def __init__(self, escm: nn.Module | None = None) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1, K))
        self.linear_v, self.attention, self.lstm_a_v = nn.Linear(D_V, 128), Attention(D_A), Streams(D_A)
        self.psp = Propagation(0.095, again=False, project=False)
        self.W1, self.W2, self.W3 = linear(256, 1), linear(64, 1), linear(K, 1)
        self.L1, self.L2 = linear(256, 64), linear(64, K)

    def scores(self, fused: Tensor) -> dict[str, Tensor]:
        scores = self.L2(self.L1(fused).relu())
        return {"logits": scores * self.W3(scores).relu().sigmoid()}

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        a, v = self.psp(*self.lstm_a_v(audio, self.linear_v(self.attention.attend(audio, cells))))
        return self.scores((a + v) / 2)


class Consistency(nn.Module):
    """VSCG's GRUs; the weak network crosses the summaries and has no layers after the GRUs."""

    def __init__(self, *, weak: bool) -> None:
        super().__init__()
        self.weak = weak
        self.conv1 = nn.Sequential(nn.Conv1d(256, 128, 5, padding=2), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv1d(128, 128, 5, padding=2), nn.ReLU())
        self.a_gru, self.v_gru = (nn.GRU(256, 128, batch_first=True, bidirectional=True) for _ in range(2))
        self.layer_norm = nn.LayerNorm(256, eps=1e-6)
        self.L1 = linear(128, 128) if weak else linear(9, 10)
        self.v_fc, self.a_fc = linear(256, 256), linear(256, 256)
        if weak:
            self.L2, self.layer_norm1 = linear(128, 128), nn.LayerNorm(128)

    def summary(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = functional.max_pool1d(conv(x if x.shape[1] == 128 else x.mT), 2)
        return x.permute(2, 0, 1).contiguous()

    def forward(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        of_a, of_v = self.summary(a), self.summary(v)
        if self.weak:
            a, v = self.a_gru(a, self.L2(of_v))[0], self.v_gru(v, self.L1(of_a))[0]
            return self.layer_norm(a), self.layer_norm(v)
        first = (of_a + of_v) / 2
        a, v = self.v_fc(self.a_gru(a, first)[0]), self.a_fc(self.v_gru(v, first)[0])
        return self.layer_norm(a.relu()), self.layer_norm(v.relu())


class VSCGNet(nn.Module):
    """The visual stream goes by the name of audio from its LSTM on."""

    def __init__(self) -> None:
        super().__init__()
        self.fa, self.fv, self.linear_v = pair(D_A, 256, 128), pair(D_V, 256, 128), nn.Linear(D_V, D_A)
        self.attention, self.lstm_a_v = Attention(128), Streams(128)
        self.psp, self.escm = Propagation(0.099, again=True, project=True), Consistency(weak=False)
        self.v_classify, self.a_classify = nn.Sequential(linear(256, 64)), nn.Sequential(linear(256, 64))
        self.L1, self.L2, self.L3, self.L4 = (
            linear(256, 64),
            linear(64, K),
            nn.Linear(256, 1),
            nn.Linear(256, K - 1),
        )
        self.audio_gated, self.video_gated = (
            nn.Sequential(nn.Linear(256, 1)),
            nn.Sequential(nn.Linear(256, 1)),
        )

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        a = self.fa(audio)
        visual = self.fv(self.attention.attend(a, cells))
        one, other = self.escm(*self.psp(*self.lstm_a_v(visual, a)))
        fused = (one + other) / 2
        return {"relevance": self.L3(fused)[..., 0], "category": self.L4(fused.amax(1))}


class WeakVSCGNet(WeakPSPNet):
    def __init__(self) -> None:
        super().__init__()
        del self.temperature
        self.psp, self.escm = Propagation(0.099, again=False, project=True), Consistency(weak=True)
        self.L3 = linear(128, 64)

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        streams = self.lstm_a_v(audio, self.linear_v(self.attention.attend(audio, cells)))
        a, v = self.escm(*self.psp(*streams))
        return self.scores((a + v) / 2)


class SequenceNet(Guided):
    """AVSDN."""

    def __init__(self) -> None:
        super().__init__()
        self.add_layers(D_A)
        self.lstm_audio, self.lstm_video, self.lstm_a_v = bilstm(D_A), bilstm(D_V), bilstm(D_A + D_V)
        self.event_classifier = nn.Sequential(nn.Linear(256, 1))
        self.category_classifier = nn.Sequential(nn.Linear(256, K - 1))
        self.U_v, self.U_a = (
            nn.Sequential(nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 128)) for _ in "va"
        )

    def fuse(self, a: Tensor, v: Tensor) -> Tensor:
        a, v = a.relu(), v.relu()
        merged = (self.U_a(a) + self.U_v(v)) / 2
        return (torch.tanh(a + merged) + torch.tanh(v + merged)) / 2

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        visual = self.attend(audio, cells)
        states = zip(self.lstm_audio(audio)[1], self.lstm_video(visual)[1], strict=True)
        first = tuple(self.fuse(*each) for each in states)
        fused = self.lstm_a_v(torch.cat((audio, visual), -1), first)[0].relu()
        category = self.category_classifier(fused.mean(1))
        return {"relevance": self.event_classifier(fused)[..., 0], "category": category}


class TransformerLayer(nn.Module):
    """A layer with PyTorch's names; `published` renames its attention and norms."""

    def __init__(
        self, wide: int, attention: str = "self_attn", norms: tuple[str, str] = ("norm1", "norm2")
    ) -> None:
        super().__init__()
        self.names = (attention, *norms)
        setattr(self, attention, nn.MultiheadAttention(256, 4, batch_first=True))
        self.linear1, self.linear2 = nn.Linear(256, wide), nn.Linear(wide, 256)
        for name in norms:
            setattr(self, name, nn.LayerNorm(256))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        attention, first, second = (getattr(self, name) for name in self.names)
        x = first(x + attention(x, memory, memory)[0])
        return second(x + self.linear2(self.linear1(x).relu()))


class Stack(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Internal(nn.Module):
    def __init__(self, wide: int, forward: int) -> None:
        super().__init__()
        self.affine_matrix, self.encoder_layer = nn.Linear(wide, 256), TransformerLayer(forward)
        self.encoder = Stack(TransformerLayer(forward), TransformerLayer(forward))

    def forward(self, x: Tensor) -> Tensor:
        x = self.affine_matrix(x)
        for layer in self.encoder.layers:
            x = layer(x, x)
        return x


class Cross(nn.Module):
    def __init__(self, wide: int, forward: int) -> None:
        super().__init__()
        self.affine_matrix, self.decoder_layer = nn.Linear(wide, 256), TransformerLayer(forward)
        layer = TransformerLayer(forward, "multihead_attn")
        layer.self_attn = nn.MultiheadAttention(256, 4)  # never called
        self.decoder = Stack(layer)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        x = self.affine_matrix(x)
        return self.decoder.layers[0](x, torch.cat((other, x), 1))


class Inter(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.video_multihead, self.norm1 = (
            nn.MultiheadAttention(256, heads, batch_first=True),
            nn.LayerNorm(256),
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        product, memory = one * other, torch.cat((other, one), 1)
        return self.norm1(product + self.video_multihead(product, memory, memory)[0])


def unscaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ v


class SpatialChannel(nn.Module):
    """Visual attention of CMRAN; of CMBS with `beta`; of CACE-Net with `psi`, which guides audio too."""

    def __init__(self, beta: float = 0, psi: float = 0) -> None:
        super().__init__()
        self.beta, self.psi = beta, psi
        wide: dict[str, tuple[int, int]] = {
            "affine_video_1": (512, 512), "affine_audio_1": (D_A, 512), "affine_bottleneck": (512, 256),
            "affine_v_c_att": (256, 512), "affine_video_2": (512, 256), "affine_audio_2": (D_A, 256),
            "affine_v_s_att": (256, 1),
        }  # fmt: skip
        if not beta:
            wide |= {"affine_video_guided_1": (512, 64), "affine_video_guided_2": (64, D_A)}
        else:
            wide |= {
                "video_query": (512, 128), "video_key": (512, 128), "video_value": (512, 512),
                "affine_video_ave": (512, 256), "affine_video_3": (512, 256), "ave_bottleneck": (512, 256),
                "ave_v_att": (256, 1),
            }  # fmt: skip
            setattr(self, "v_norm" if psi else "norm", nn.LayerNorm(512))
        if psi:
            wide |= {"video_query2": (512, 128), "video_key2": (512, 128), "video_value2": (512, 512)}
            wide |= {"v_query": (512, D_A)}
            wide |= {
                f"{name}_{part}": (D_A, D_A)
                for name, parts in (("vaudio", ("key", "value")), ("audio", ("query", "key", "value")))
                for part in parts
            }
            self.v_norm2, self.a_norm = nn.LayerNorm(512), nn.LayerNorm(D_A)
        for name, sizes in wide.items():
            setattr(self, name, nn.Linear(*sizes))

    def related(self, cells: Tensor, suffix: str = "") -> Tensor:
        norm = self.v_norm if self.psi else self.norm
        parts = (getattr(self, f"video_{part}{suffix}")(cells) for part in ("query", "key", "value"))
        return norm(cells + unscaled(*parts))

    def forward(self, cells: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        query = self.related(cells) if self.beta else cells
        pairs = self.affine_audio_1(audio).relu()[:, :, None] * self.affine_video_1(query).relu()
        gates = self.affine_v_c_att(self.affine_bottleneck(pairs.mean(2)).relu()).sigmoid()
        weighted = cells * (1 + gates[:, :, None])
        pairs = self.affine_video_2(weighted).relu() * self.affine_audio_2(audio).relu()[:, :, None]
        visual = (torch.tanh(self.affine_v_s_att(pairs)).softmax(2) * weighted).sum(2)
        if self.beta:
            pairs = (
                self.affine_video_3(query).relu() * self.affine_video_ave(query.mean(2)).relu()[:, :, None]
            )
            own = (torch.tanh(self.ave_v_att(pairs)).softmax(2) * query).sum(2)
            visual = visual + self.beta * own.sigmoid() * visual
        if self.psi:
            parts = (getattr(self, f"audio_{part}")(audio) for part in ("query", "key", "value"))
            told = self.a_norm(audio + unscaled(*parts))
            asked = self.v_query(self.related(cells, "2").mean(2))
            guide = unscaled(asked, self.vaudio_key(told), self.vaudio_value(told))
            audio = audio + self.psi * guide.sigmoid() * audio
        return visual, audio


class Localize(nn.Module):
    def __init__(self, classes: int, refine: float = 0) -> None:
        super().__init__()
        self.classifier, self.event_classifier, self.refine = (
            nn.Linear(256, 1),
            nn.Linear(256, classes),
            refine,
        )
        if refine:
            self.encoder_q = nn.Sequential(nn.Linear(256, 256), nn.ReLU())

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        local = fused + self.refine * self.encoder_q(fused) if self.refine else fused
        return self.classifier(local)[..., 0], self.event_classifier(fused.amax(1))


class CMRANNet(nn.Module):
    def __init__(self, *, weak: bool) -> None:
        super().__init__()
        self.spatial_channel_att, self.v_fc = SpatialChannel(), nn.Linear(D_V, 512)
        self.video_encoder, self.video_decoder = Internal(512, 2048), Cross(512, 2048)
        self.audio_encoder, self.audio_decoder = Internal(D_A, 2048), Cross(D_A, 2048)
        self.AVInter, self.localize_module = Inter(2 if weak else 4), Localize(K if weak else K - 1)

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        visual, _ = self.spatial_channel_att(self.v_fc(cells).relu(), audio)
        a = self.audio_decoder(audio, self.video_encoder(visual))
        v = self.video_decoder(visual, self.audio_encoder(audio))
        return dict(zip(("relevance", "category"), self.localize_module(self.AVInter(v, a)), strict=True))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.audio_rnn, self.visual_rnn = bilstm(D_A), bilstm(512, 256)


class CMBSNet(nn.Module):
    """CMBS, and with `psi` CACE-Net."""

    def __init__(self, psi: float = 0) -> None:
        super().__init__()
        self.spatial_channel_att, self.v_fc = SpatialChannel(0.4, psi), nn.Linear(D_V, 512)
        crossed = 512 if psi else 1024
        self.video_encoder, self.video_decoder = Internal(512, 1024), Cross(512, crossed)
        self.audio_encoder, self.audio_decoder = Internal(256, 1024), Cross(256, crossed)
        self.audio_visual_rnn_layer = Recurrent()
        self.audio_gated, self.video_gated = (nn.Sequential(nn.Linear(256, 1)) for _ in "av")
        self.AVInter, self.VAInter = Inter(4), Inter(4)
        self.localize_module = Localize(K - 1, 0.6 if psi else 0)
        self.audio_cas, self.video_cas = nn.Linear(256, K - 1), nn.Linear(256, K - 1)
        if psi:
            self.a_fc = nn.Linear(D_A, 128)
        else:
            self.video_norm, self.audio_norm = nn.LayerNorm(256), nn.LayerNorm(256)

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        visual, audio = self.spatial_channel_att(self.v_fc(cells).relu(), audio)
        audio = self.audio_visual_rnn_layer.audio_rnn(audio)[0]
        visual = self.audio_visual_rnn_layer.visual_rnn(visual)[0]
        of_v, of_a = self.video_encoder(visual), self.audio_encoder(audio)
        a, v = self.audio_decoder(audio, of_v), self.video_decoder(visual, of_a)
        gate_a, gate_v = self.audio_gated(of_a).sigmoid(), self.video_gated(of_v).sigmoid()
        v, a = v + gate_a * v * 0.1, a + gate_v * a * 0.1
        modal = (best(self.video_cas(v)) + best(self.audio_cas(a))) / 2
        v = self.AVInter(v, a)
        relevance, category = self.localize_module((v + self.VAInter(a, v)) / 2)
        return {
            "relevance": relevance, "category": category + 0.3 * modal, "gate": (gate_a * gate_v)[..., 0],
            "modal_category": modal,
        }  # fmt: skip


def best(scores: Tensor) -> Tensor:
    return scores.sort(dim=1, descending=True).values[:, :4].mean(1)


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Conv1d(256, K, 1, bias=False))


class WeakCMBSNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial_channel_att, self.v_fc = SpatialChannel(0.5), nn.Linear(D_V, 512)
        self.video_encoder, self.video_decoder = Internal(512, 2048), Cross(512, 1024)
        self.audio_encoder, self.audio_decoder = Internal(D_A, 2048), Cross(D_A, 1024)
        self.audio_gated, self.video_gated = (nn.Sequential(nn.Linear(256, 1)) for _ in "av")
        self.AVInter, self.VAInter, self.CAS_model = Inter(2), Inter(2), Scores()
        self.classifier, self.audio_cas, self.video_cas = (
            nn.Linear(256, 1),
            nn.Linear(256, K),
            nn.Linear(256, K),
        )

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        visual, _ = self.spatial_channel_att(self.v_fc(cells).relu(), audio)
        of_v, of_a = self.video_encoder(visual), self.audio_encoder(audio)
        a, v = self.audio_decoder(audio, of_v), self.video_decoder(visual, of_a)
        gate_a, gate_v = self.audio_gated(of_v).sigmoid(), self.video_gated(of_a).sigmoid()
        v, a = 0.8 * v + 0.2 * gate_a * v, 0.8 * a + 0.2 * gate_v * a
        modal = self.video_cas(v).sigmoid() + self.audio_cas(a).sigmoid()
        v = self.AVInter(v, a)
        scores = self.CAS_model.classifier(((v + self.VAInter(a, v)) / 2).mT).mT
        gate = (gate_a + gate_v)[..., 0] / 2
        return {"category": best(0.5 * modal * scores), "relevance": torch.logit(gate)}


class ResidualLSTM(nn.Module):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.linear, self.rnn = nn.Linear(wide + 512, 512), bilstm(wide, 256, 2)
        self.init_hidden = nn.Parameter(torch.randn(8, 256) / 4)

    def forward(self, x: Tensor) -> Tensor:
        first, cell = (
            part[:, None].expand(-1, len(x), -1).contiguous() for part in self.init_hidden.split(4)
        )
        return functional.normalize(self.linear(torch.cat((x, self.rnn(x, (first, cell))[0]), -1)), dim=-1)


class Position(Attention):
    def __init__(self) -> None:
        super().__init__(512)
        self.affine_feat = nn.Linear(D_V, 512)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_linear = nn.Linear(1024, 1024)
        self.key1_linear, self.key2_linear = nn.Linear(T, T), nn.Linear(T, T)
        self.value1_linear, self.value2_linear = nn.Linear(512, 512), nn.Linear(512, 512)


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense_coattn = Dense()
        self.linears = nn.ModuleList(nn.Sequential(nn.Linear(1024, 512)) for _ in range(2))

    def forward(self, visual: Tensor, audio: Tensor) -> list[Tensor]:
        joint = self.dense_coattn.query_linear(torch.cat((visual, audio), -1))
        new = []
        for place, x in enumerate((visual, audio)):
            key = getattr(self.dense_coattn, f"key{place + 1}_linear")(x.mT)
            value = getattr(self.dense_coattn, f"value{place + 1}_linear")(x)
            told = torch.tanh(value @ torch.tanh(key @ joint / 32)).relu()
            new.append(x + self.linears[place](told).relu())
        return new


class Units(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.dcn_layers = nn.ModuleList(Unit() for _ in range(count))


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Position()


class Predict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Joint = ResidualLSTM(1024)
        self.predict = nn.Sequential(nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, K))


class JCANNet(nn.Module):
    def __init__(self, recursions: int) -> None:
        super().__init__()
        self.audio_extract, self.video_extract = ResidualLSTM(D_A), ResidualLSTM(512)
        self.video_attn, self.coattn, self.predict = Attended(), Units(recursions), Predict()

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        a = self.audio_extract(functional.normalize(audio, dim=-1))
        attention = self.video_attn.attn
        v = self.video_extract(
            attention.affine_feat(attention.attend(a, functional.normalize(cells, dim=-1)))
        )
        for unit in self.coattn.dcn_layers:
            v, a = unit(v, a)
        return {"probabilities": self.predict.predict(self.predict.Joint(torch.cat((v, a), -1))).softmax(-1)}


class Classifier(nn.Module):
    def __init__(self, out: int) -> None:
        super().__init__()
        self.linear2 = nn.Linear(256, out)


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(512, 256, 3, padding=1), nn.LeakyReLU(), nn.Conv1d(256, 256, 3, padding=1)
        )
        self.ln2 = nn.LayerNorm(256)


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        place, rate = torch.arange(20.0)[:, None], torch.exp(torch.arange(0, 256, 2) * (-math.log(1e4) / 256))
        table = torch.zeros(20, 1, 256)
        table[:, 0, 0::2], table[:, 0, 1::2] = (place * rate).sin(), (place * rate).cos()
        self.register_buffer("pe", table)


class Bank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cls_v_queue", torch.randn(K - 1, BANK, 2, 2, D_V))
        self.register_buffer("cls_a_queue", torch.randn(K - 1, BANK, D_A))
        self.register_buffer("cls_sc_queue", torch.rand(K - 1, BANK) + 0.1)


class MemoryNet(nn.Module):
    """LESP."""

    def __init__(self, *, weak: bool) -> None:
        super().__init__()
        self.weak, self.margin = weak, 0.9 if weak else 0.7

        def embed(wide: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(wide, 256), nn.LeakyReLU(), nn.Linear(256, 256))

        self.audio_fc, self.video_fc, self.vstf_pe = embed(D_A), embed(D_V), Positions()
        self.video_stf, self.audio_tf, self.video_ttf = (Stack(TransformerLayer(1024)) for _ in range(3))
        self.spatial_decoder, self.temporal_decoder = (
            Stack(TransformerLayer(1024, "multihead_attn", ("norm2", "norm3"))) for _ in range(2)
        )
        self.fusion_layer, self.aligned_bank = Fusion(), Bank()
        self.audio_classifier, self.video_classifier = nn.Linear(256, K - 1), nn.Linear(256, K - 1)
        self.final_event_classifier, self.final_bg_classifier = Classifier(K - 1), Classifier(1)

    def encode(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.audio_fc(audio)
        m = (self.video_fc(cells) + self.vstf_pe.pe[: cells.shape[2], 0]).flatten(0, 1)
        m = self.video_stf.layers[0](m, m)
        local = self.spatial_decoder.layers[0](a.reshape(-1, 1, 256), m).reshape(a.shape)
        v = m.mean(1).reshape(a.shape)
        a, v = self.audio_tf.layers[0](a, a), self.video_ttf.layers[0](v, v)
        joined = torch.cat((local, self.temporal_decoder.layers[0](a, v)), -1)
        return self.fusion_layer.ln2(self.fusion_layer.layers(joined.mT).mT), a, v

    def forward(self, audio: Tensor, cells: Tensor) -> dict[str, Tensor]:
        fused, a, v = self.encode(audio, cells)
        memory = self.encode(self.aligned_bank.cls_a_queue, self.aligned_bank.cls_v_queue.flatten(2, 3))[0]
        category = -(torch.cdist(fused, memory.mean(1)) / 16).mean(1) / 0.1
        if self.weak:
            plain = self.final_event_classifier.linear2(fused).mean(1)
            category = category.softmax(-1) + plain.softmax(-1)
        nearest = (torch.cdist(fused, memory[category.argmax(-1)]) / 16).amin(-1)
        return {
            "relevance": self.margin - nearest,
            "category": category.log() if self.weak else category,
            "classifier_relevance": self.final_bg_classifier.linear2(fused)[..., 0],
            "classifier_category": self.final_event_classifier.linear2(fused).mean(1),
            "category_a": self.audio_classifier(a),
            "category_v": self.video_classifier(v),
        }
