"""PSP, AVEL, DMRN and the Bi-LSTM head against their published computation written out in loops."""

import numpy as np
import pytest
import torch

from avel.errors import ConfigError
from avel.heads.models.head import Widths, build_model
from tests.heads.by_hand import Weights, agva, below, bilstm, layer_norm, linear, sigmoid, softmax
from tests.heads.models.rivals import D_V, B, K, T, clips, model_of
from tests.heads.synthetic import train_config


def streams(w: Weights, audio: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AVEL's two Bi-LSTMs, the visual one after AGVA."""
    attended = agva(below(w, "agva."), audio, maps.reshape(T, -1, D_V))
    return bilstm(below(w, "audio.lstm."), audio), bilstm(below(w, "visual.lstm."), attended)


def test_avel_with_concatenation() -> None:
    model, w = model_of("avel")
    audio, maps = clips()
    logits = model(audio, maps).logits.detach().numpy()
    for clip in range(B):
        a, v = streams(w, audio[clip].numpy(), maps[clip].numpy())
        joined = np.maximum(np.concatenate((v, a), 1), 0)
        expected = linear(w, "classify.3", np.maximum(linear(w, "classify.1", joined), 0))
        np.testing.assert_allclose(logits[clip], expected, rtol=1e-8, atol=1e-11)


def test_avel_with_dmrn() -> None:
    model, w = model_of("avel", fusion="dmrn")
    audio, maps = clips()
    logits = model(audio, maps).logits.detach().numpy()
    for clip in range(B):
        a, v = streams(w, audio[clip].numpy(), maps[clip].numpy())
        u_v = linear(w, "dmrn.U_v.2", np.tanh(linear(w, "dmrn.U_v.0", v)))
        u_a = linear(w, "dmrn.U_a.2", np.tanh(linear(w, "dmrn.U_a.0", a)))
        merged = (u_v + u_a) / 2
        mean = (np.tanh(a + merged) + np.tanh(v + merged)) / 2
        np.testing.assert_allclose(logits[clip], linear(w, "classify.0", mean), rtol=1e-8, atol=1e-11)


def test_avel_takes_vectors_where_there_are_no_maps() -> None:
    model, w = model_of("avel", cells=0)
    audio, visual = clips(maps=False)
    logits = model(audio, visual).logits.detach().numpy()
    a = bilstm(below(w, "audio.lstm."), audio[0].numpy())
    v = bilstm(below(w, "visual.lstm."), visual[0].numpy())
    joined = np.maximum(np.concatenate((v, a), 1), 0)
    expected = linear(w, "classify.3", np.maximum(linear(w, "classify.1", joined), 0))
    np.testing.assert_allclose(logits[0], expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_avel_loss_is_soft_margin_of_softmax_scores(supervision: str) -> None:
    model, _ = model_of("avel", supervision=supervision)
    output = model(*clips())
    logits = output.logits.detach().numpy()
    labels = torch.tensor([[0, 1, 3, 3, 2], [1, 1, 1, 0, 3]])
    if supervision == "weak":
        rows, targets = logits.max(1), [2, 0]
    else:
        rows, targets = logits.reshape(-1, K), labels.flatten().tolist()
    terms = []
    for row, target in zip(rows, targets, strict=True):
        for k, score in enumerate(softmax(row)):
            terms.append(-np.log(sigmoid(score if k == target else -score)))
    given = torch.tensor(targets) if supervision == "weak" else labels
    assert model.loss(output, given).item() == pytest.approx(np.mean(terms), rel=1e-10)


def propagate(
    w: Weights, v: np.ndarray, a: np.ndarray, threshold: float, weak: bool
) -> tuple[np.ndarray, np.ndarray]:
    """PSP's v' and a' of one clip, with loops over the pairs."""
    v1, v2, a1, a2 = (
        np.maximum(linear(w, f"{n}.0", x), 0)
        for n, x in zip(("v1", "v2", "a1", "a2"), (v, v, a, a), strict=True)
    )
    beta = np.zeros((T, T))
    for i in range(T):
        for j in range(T):
            beta[i, j] = max(0.0, float(v2[i] @ a1[j]) / np.sqrt(256))

    def gamma(pairs: np.ndarray) -> np.ndarray:
        kept = np.zeros((T, T))
        for i in range(T):
            row = pairs[i] / (pairs[i].sum() + 1e-8)
            row = np.array([value if value > threshold else 0.0 for value in row])
            kept[i] = row if weak else row / (row.sum() + 1e-8)
        return kept

    new_v, new_a = v + gamma(beta) @ a2, a + gamma(beta.T) @ v1
    norm = (w["norm.weight"], w["norm.bias"], 1e-6)
    if weak:
        return layer_norm(new_v, *norm), layer_norm(new_a, *norm)
    return (
        layer_norm(np.maximum(new_v @ w["out_v.0.weight"].T, 0), *norm),
        layer_norm(np.maximum(new_a @ w["out_a.0.weight"].T, 0), *norm),
    )


@pytest.mark.parametrize(
    ("supervision", "settings", "cut"),
    [
        ("full", {}, 0.099),
        ("weak", {}, 0.095),
        ("full", {"threshold": 0.21}, 0.21),
        ("weak", {"threshold": 0.21}, 0.21),
    ],
)
def test_psp(supervision: str, settings: dict[str, float], cut: float) -> None:
    model, w = model_of("psp", supervision=supervision, **settings)
    assert not {"propagate.out_v.0.bias", "propagate.out_a.0.bias"} & set(w)
    weak = supervision == "weak"
    assert ("visual.bias" in w) == weak
    audio, maps = clips()
    output = model(audio, maps)
    for clip in range(B):
        a = audio[clip].numpy()
        a = a if weak else linear(w, "audio.1", linear(w, "audio.0", a))
        v = agva(below(w, "agva."), a, maps[clip].numpy().reshape(T, -1, D_V))
        v = linear(w, "visual", v) if weak else linear(w, "visual.1", linear(w, "visual.0", v))
        a, v = bilstm(below(w, "audio_lstm.lstm."), a), bilstm(below(w, "visual_lstm.lstm."), v)
        new_v, new_a = propagate(below(w, "propagate."), v, a, cut, weak)
        expected = linear(w, "classify.2", np.maximum(linear(w, "classify.0", (new_v + new_a) / 2), 0))
        if weak:
            expected = expected * sigmoid(np.maximum(linear(w, "gate", expected), 0))
        np.testing.assert_allclose(output.logits[clip].detach().numpy(), expected, rtol=1e-7, atol=1e-10)
        for t in range(T):
            cosine = new_v[t] @ new_a[t] / np.linalg.norm(new_v[t]) / np.linalg.norm(new_a[t])
            assert output.extras["similarity"][clip, t].item() == pytest.approx(cosine, rel=1e-7)


@pytest.mark.parametrize("fractions", [True, False])
def test_weak_psp_learns_from_the_fraction_of_each_class(fractions: bool) -> None:
    model, _ = model_of("psp", supervision="weak")
    output = model(*clips())
    told, terms = np.array([[0, 0.4, 0, 0.6], [1.0, 0, 0, 0]]), []
    for clip, category in enumerate((2, 0)):
        wanted = told[clip] if fractions else np.eye(K)[category]
        p = softmax(output.logits[clip].detach().numpy().mean(0))
        terms += (-wanted * np.log(p) - (1 - wanted) * np.log(1 - p)).tolist()
    labels = torch.from_numpy(told) if fractions else torch.tensor([2, 0])
    assert model.loss(output, labels).item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_psp_pair_loss() -> None:
    labels = torch.tensor([[0, 1, 3, 3, 2], [3, 3, 3, 3, 3]])
    losses = {}
    for weight in (0.0, 100.0):
        model, _ = model_of("psp", pair_loss=weight)
        output = model(*clips())
        losses[weight] = model.loss(output, labels).item()
    errors = []
    for clip in range(B):
        similar = np.maximum(output.extras["similarity"][clip].detach().numpy(), 0)
        event = (labels[clip].numpy() < K - 1).astype(float)
        wanted = event / event.sum() if event.any() else event
        errors += ((similar / (similar.sum() + 1e-8) - wanted) ** 2).tolist()
    assert losses[100.0] - losses[0.0] == pytest.approx(100 * np.mean(errors), rel=1e-6)


def test_psp_has_no_pair_loss_without_segment_labels() -> None:
    model, _ = model_of("psp", supervision="weak", pair_loss=100.0)
    plain, _ = model_of("psp", supervision="weak", pair_loss=0.0)
    losses = [each.loss(each(*clips()), torch.arange(B)) for each in (model, plain)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("modality", "merge"), [("both", "add"), ("both", "concatenate"), ("audio", "add"), ("visual", "add")]
)
def test_bilstm_head(modality: str, merge: str) -> None:
    model, w = model_of("bilstm", cells=0, modality=modality, merge=merge)
    audio, visual = clips(maps=False)
    logits = model(audio, visual).logits.detach().numpy()
    for clip in range(B):
        parts = []
        if modality != "visual":
            parts.append(bilstm(below(w, "audio.lstm."), audio[clip].numpy()))
        if modality != "audio":
            parts.append(bilstm(below(w, "visual.lstm."), visual[clip].numpy()))
        joined = np.concatenate(parts, 1) if merge == "concatenate" else sum(parts)
        np.testing.assert_allclose(logits[clip], mlp(w, np.asarray(joined)), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", ["mlp", "bilstm"])
def test_one_modality_is_not_concatenated(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot concatenate one modality, audio"):
        model_of(name, cells=0, modality="audio", merge="concatenate")


def mlp(w: Weights, rows: np.ndarray) -> np.ndarray:
    hidden = np.maximum(linear(w, "mlp.0", rows), 0)
    return linear(w, "mlp.4", np.maximum(linear(w, "mlp.2", hidden), 0))


@pytest.mark.parametrize("modality", ["both", "audio", "visual"])
def test_mlp_probe(modality: str) -> None:
    config = train_config(head="mlp", modality=modality)  # type: ignore[arg-type]
    model = build_model(config, Widths(6, 6, K), seed=0).double()
    random = torch.Generator().manual_seed(6)
    audio, visual = torch.randn(2, B, T, 6, generator=random, dtype=torch.float64)
    chosen = {"both": audio + visual, "audio": audio, "visual": visual}[modality].numpy()
    w = {name: value.numpy() for name, value in model.head.state_dict().items()}
    logits = model(audio, visual).logits.detach().numpy()
    np.testing.assert_allclose(logits, mlp(w, chosen), rtol=1e-9)


def test_weak_loss_averages_scores_over_time_before_the_softmax() -> None:
    config = train_config(head="mlp", supervision="weak")
    model = build_model(config, Widths(6, 6, K), seed=0).double()
    random = torch.Generator().manual_seed(6)
    output = model(*torch.randn(2, B, T, 6, generator=random, dtype=torch.float64))
    scores = output.logits.detach().numpy()
    expected = [-np.log(softmax(scores[clip].mean(0))[category]) for clip, category in enumerate((2, 0))]
    assert model.loss(output, torch.tensor([2, 0])).item() == pytest.approx(np.mean(expected), rel=1e-10)


@pytest.mark.parametrize(
    ("settings", "xavier", "plain"),
    [
        (
            {"name": "psp"},
            ["agva.score.weight", "propagate.a2.0.weight", "classify.2.weight"],
            "visual.1.weight",
        ),
        ({"name": "avel"}, ["agva.audio.0.weight", "classify.1.weight"], "audio.lstm.weight_hh_l0"),
        ({"name": "avel", "fusion": "dmrn"}, ["classify.0.weight"], "dmrn.U_v.0.weight"),
    ],
)
def test_weights_start_as_published(settings: dict[str, str], xavier: list[str], plain: str) -> None:
    """Xavier's uniform spread is sqrt(6 / (in + out)); PyTorch draws within 1 / sqrt(in)."""
    _, w = model_of(**settings)  # twice as large as they start
    for name in xavier:
        assert 0.9 < abs(w[name]).max() / 2 / np.sqrt(6 / sum(w[name].shape)) <= 1
    limit = 1 / np.sqrt(128 if "lstm" in plain else 256)
    assert 0.97 < abs(w[plain]).max() / 2 / limit <= 1
