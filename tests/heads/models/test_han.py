"""HAN: its equations written out, and what its pooling says."""

import math

import pytest
import torch
from torch import Tensor

from avel.errors import ConfigError
from avel.heads.models.han import HAN
from avel.heads.models.head import Model, Widths, build_model
from tests.heads.synthetic import train_config

B, T, D_A, D_V, C = 3, 4, 6, 9, 5
WIDTHS = Widths(D_A, D_V, 2 * C, 0, T, "multi_label", 2)


def model_of(supervision: str = "weak") -> Model:
    config = train_config(head="han", supervision=supervision)
    return build_model(config, WIDTHS, seed=1).double().eval()


def inputs() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    return tuple(torch.randn(B, T, d, generator=random, dtype=torch.float64) for d in (D_A, D_V))  # type: ignore[return-value]


def attended(layer: torch.nn.MultiheadAttention, asks: Tensor, answers: Tensor) -> Tensor:
    """One head of scaled dot products, by loops over clips and segments."""
    w_q, w_k, w_v = layer.in_proj_weight.chunk(3)
    b_q, b_k, b_v = layer.in_proj_bias.chunk(3)
    rows = []
    for clip in range(len(asks)):
        for segment in range(asks.shape[1]):
            q = w_q @ asks[clip, segment] + b_q
            scores = torch.stack([q @ (w_k @ each + b_k) for each in answers[clip]]) / math.sqrt(len(q))
            values = torch.stack([w_v @ each + b_v for each in answers[clip]])
            rows.append(layer.out_proj(scores.softmax(0) @ values))
    return torch.stack(rows).view_as(asks)


def test_scores_and_pooling_are_the_papers() -> None:
    """f + g_sa + g_ca for each modality; p^wild sums W_tp W_av p over segments and modalities."""
    model, (audio, visual) = model_of(), inputs()
    head = model.head
    assert isinstance(head, HAN)
    output = model(audio, visual)
    f_a, f_v = head.audio(audio), head.visual(visual)
    attend, hybrid = head.attend, []
    for own, other in ((f_a, f_v), (f_v, f_a)):
        summed = attend.first(own + attended(attend.own, own, own) + attended(attend.other, own, other))
        layers = attend.layers
        hybrid.append(attend.second(summed + layers[3](torch.relu(layers[0](summed)))))
    assert head.temporal is not None
    assert head.modal is not None
    p = [torch.sigmoid(head.classify(each)) for each in hybrid]
    w_tp = [torch.exp(head.temporal(each)) for each in hybrid]
    w_tp = [each / each.sum(1, keepdim=True) for each in w_tp]
    w_av = [torch.exp(head.modal(each)) for each in hybrid]
    w_av = [each / (w_av[0] + w_av[1]) for each in w_av]
    video = torch.zeros(B, C, dtype=torch.float64)
    for m in range(2):
        torch.testing.assert_close(output.extras["modalities"][:, m], (w_tp[m] * p[m]).sum(1))
        for t in range(T):
            video += w_tp[m][:, t] * w_av[m][:, t] * p[m][:, t]
    torch.testing.assert_close(output.extras["video"], video)
    said = torch.sigmoid(output.logits).view(B, T, 2, C)
    for m in range(2):
        torch.testing.assert_close(said[:, :, m], torch.minimum(p[m], video.unsqueeze(1)))


def test_the_weak_loss_is_of_the_video_and_of_each_modality_with_the_visual_labels_smoothed() -> None:
    model = model_of()
    output = model(*inputs())
    labels = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])

    def cross_entropy(p: Tensor, wanted: Tensor) -> Tensor:
        return -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean()

    p_a, p_v = output.extras["modalities"].unbind(1)
    wanted = cross_entropy(output.extras["video"], labels) + cross_entropy(p_a, labels)
    wanted += cross_entropy(p_v, torch.where(labels == 1, 0.95, 0.05))
    torch.testing.assert_close(model.loss(output, labels), wanted)


def test_what_is_heard_changes_when_the_audio_does() -> None:
    """Under full supervision, without pooling, each modality's scores are its own classifier's."""
    model, (audio, visual) = model_of("full"), inputs()
    before = model(audio, visual)
    assert set(before.extras) == {"segments"}
    torch.testing.assert_close(before.logits, before.extras["segments"].flatten(2))
    after = model(audio.roll(1, 0), visual)
    assert not torch.allclose(before.logits[..., :C], after.logits[..., :C])


def test_events_of_both_modalities_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="'han' needs events of one modality alone"):
        build_model(train_config(head="han"), Widths(D_A, D_V, C, 0, T, "multi_label", 1), seed=0)
