"""AVIN against its description written out in loops, and what follows from it."""

import numpy as np
import pytest
import torch

from avel.heads.models.avin import BilinearPooling, weighted
from tests.heads.by_hand import Weights, agva, below, bilstm, linear, sigmoid, softmax
from tests.heads.models.rivals import SIDE, B, T, clips, live_parameters, model_of, numpy


def bilinear(w: Weights, a: np.ndarray, v: np.ndarray, factors: int) -> np.ndarray:
    """Each value is the sum of `factors` products, rooted with its sign; each row has length 1."""
    rows = []
    for from_a, from_v in zip(linear(w, "audio", a), linear(w, "visual", v), strict=True):
        summed = [
            sum(from_a[factors * i + j] * from_v[factors * i + j] for j in range(factors)) for i in range(256)
        ]
        row = np.array([np.sign(z) * np.sqrt(abs(z)) for z in summed])
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


def asked(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    alphas = softmax(np.array([row @ mean for row in features]))
    return np.array([alpha * row for alpha, row in zip(alphas, features, strict=True)])


@pytest.mark.parametrize(
    ("maps", "settings"),
    [(True, {}), (True, {"pooling": "agva"}), (True, {"factors": 3}), (False, {})],
    ids=["mean", "agva", "factors", "vectors"],
)
def test_avin(maps: bool, settings: dict[str, object]) -> None:
    model, w = model_of("avin", SIDE**2 if maps else 0, **settings)
    audio, visual = clips(maps)
    logits = numpy(model(audio, visual).logits)
    for clip in range(B):
        a, v = audio[clip].numpy(), visual[clip].numpy()
        if settings.get("pooling") == "agva":
            v = agva(below(w, "agva."), a, v.reshape(T, SIDE**2, -1))
        elif maps:
            v = np.array([segment.reshape(SIDE**2, -1).mean(0) for segment in v])
        F_a, F_v = bilstm(below(w, "audio.lstm."), a), bilstm(below(w, "visual.lstm."), v)
        A, V = asked(F_a, F_a.mean(0)), asked(F_v, F_v.mean(0))
        z = bilinear(below(w, "bilinear."), F_a, F_v, int(str(settings.get("factors", 5))))
        joined = np.concatenate((A, V, asked(F_a, V.mean(0)), asked(F_v, A.mean(0)), z), 1)
        np.testing.assert_allclose(logits[clip], linear(w, "classify", joined), rtol=1e-3, atol=1e-4)


def test_weak_loss() -> None:
    model, _ = model_of("avin", supervision="weak")
    output = model(*clips())
    terms = []
    for clip, category in enumerate((2, 0)):
        for k, score in enumerate(softmax(numpy(output.logits)[clip].mean(0))):
            terms.append(-np.log(sigmoid(score if k == category else -score)))
    assert model.loss(output, torch.tensor([2, 0])).item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_weights_over_time_sum_to_1() -> None:
    model, _ = model_of("avin")
    extras = model(*clips()).extras
    for name in ("intra_a", "intra_v", "inter_a", "inter_v"):
        torch.testing.assert_close(extras[name].sum(-1), torch.ones(B, dtype=torch.float64))


def test_segments_that_are_alike_share_evenly() -> None:
    random = torch.Generator().manual_seed(1)
    features = torch.randn(B, 1, 256, generator=random, dtype=torch.float64).expand(-1, T, -1)
    torch.testing.assert_close(weighted(features, features)[0], features / T)


def test_pooled_vectors_have_length_1_however_loud_the_sound() -> None:
    torch.manual_seed(0)
    pool = BilinearPooling(5, 0.1).double().eval()
    audio, visual = torch.randn(2, B, T, 256, dtype=torch.float64)
    z = pool(audio, visual)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(B, T, dtype=torch.float64))
    torch.testing.assert_close(pool(3 * audio, visual), z, rtol=0, atol=1e-6)


def test_the_gradient_is_finite_where_dropout_leaves_nothing() -> None:
    torch.manual_seed(0)
    pool = BilinearPooling(2, 0.9)  # four of five sums are 0
    audio, visual = torch.randn(2, 8, T, 256)
    audio.requires_grad_()
    pool(audio, visual).sum().backward()
    assert audio.grad is not None
    assert audio.grad.isfinite().all()


def test_parameters() -> None:
    lstms = sum(2 * (512 * (width + 128) + 1024) for width in (128, 512))
    assert live_parameters("avin") == lstms + 2 * 256 * 1280 + 1281 * 29
