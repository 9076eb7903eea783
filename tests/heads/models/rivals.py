"""What the tests of the published heads share: small models in float64, clips, losses written out."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from avel.heads.models.head import HeadOutput, Model, Widths, build_model
from tests.heads.by_hand import Weights, sigmoid, softmax
from tests.heads.synthetic import train_config

B, T, SIDE, D_A, D_V, K = 2, 5, 2, 6, 7, 4
AVE = Widths(audio=128, visual=512, classes=29, cells=49, segments=10)
LABELS = torch.tensor([[0, 1, 3, 3, 2], [3, 1, 1, 3, 3]])
"""B clips of T segments; background is 3, and the first clip, against AVE's custom, holds three events."""
ByHand = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""A clip's audio and visual features -> the extras that are expected of it."""


def model_of(name: str, cells: int = SIDE**2, segments: int = T, **settings: Any) -> tuple[Model, Weights]:
    """A model in evaluation mode and its weights by name; `settings` may hold supervision="weak"."""
    model = build_model(train_config(head=name, **settings), Widths(D_A, D_V, K, cells, segments), seed=4)
    # the seed alone leaves attention close to uniform and scores close to 0
    return doubled(model.double().eval())


def doubled(model: Model) -> tuple[Model, Weights]:
    """The model with all weights doubled, so that no branch of it is too faint to be tested."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model, {name: value.numpy() for name, value in model.head.state_dict().items()}


def clips(maps: bool = True, count: int = B, segments: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    shape = (count, segments, SIDE, SIDE, D_V) if maps else (count, segments, D_V)
    audio = torch.randn(count, segments, D_A, generator=random, dtype=torch.float64)
    return audio, torch.randn(*shape, generator=random, dtype=torch.float64)


def live_parameters(name: str, supervision: str = "full") -> int:
    """How many parameters of the head on AVE get a gradient."""
    model = build_model(train_config(head=name, supervision=supervision), AVE, seed=0)
    random = torch.Generator().manual_seed(1)
    audio = torch.randn(4, 10, AVE.audio, generator=random)
    output = model(audio, torch.randn(4, 10, 7, 7, AVE.visual, generator=random))
    labels = torch.tensor([3, 3, 5, 28])[:, None].expand(4, 10).clone()
    labels[:3, 6:] = 28
    model.loss(output, labels[:, 0] if supervision == "weak" else labels).backward()
    return sum(p.numel() for p in model.parameters() if p.grad is not None and bool(p.grad.any()))


def decide(relevance: np.ndarray, category: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The published decoder: (B, T), (B, C) -> (B, T)."""
    found = np.full(relevance.shape, K - 1)
    for clip in range(len(relevance)):
        for t in range(relevance.shape[1]):
            if sigmoid(relevance[clip, t]) > threshold:
                found[clip, t] = category[clip].argmax()
    return found


def cross_entropy(scores: np.ndarray, target: int) -> float:
    return float(-np.log(softmax(scores)[target]))


def binary_cross_entropy(logit: float, wanted: float) -> float:
    p = 1 / (1 + np.exp(-logit))
    return float(-wanted * np.log(p) - (1 - wanted) * np.log(1 - p))


def relevance_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the segments: (B, T), (B, T)."""
    pairs = zip(logits.flatten(), labels.flatten(), strict=True)
    return float(np.mean([binary_cross_entropy(logit, float(label < K - 1)) for logit, label in pairs]))


def category_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the clips that hold an event: (B, C), (B, T)."""
    terms = []
    for row, segments in zip(scores, labels, strict=True):
        events = [label for label in segments if label < K - 1]
        if events:
            terms.append(cross_entropy(row, max(events)))
    return float(np.mean(terms))


def instance_loss(relevance: np.ndarray, category: np.ndarray, categories: list[int]) -> float:
    """The weak loss: (B, T), (B, C), B classes."""
    terms = []
    for clip, wanted in enumerate(categories):
        largest = [
            max(sigmoid(e) * category[clip, k] for e in relevance[clip]) for k in range(category.shape[1])
        ]
        for k, score in enumerate(softmax(np.array(largest))):
            terms.append(-np.log(sigmoid(score if k == wanted else -score)))
    return float(np.mean(terms))


def event_loss(output: HeadOutput, labels: np.ndarray) -> float:
    """What the fully supervised heads add their own terms to."""
    relevance, category = numpy(output.extras["relevance"]), numpy(output.extras["category"])
    return relevance_loss(relevance, labels) + category_loss(category, labels)


def assert_as_by_hand(model: Model, maps: bool, by_hand: ByHand) -> HeadOutput:
    """Holds extras, all but AGVA's weights, to each clip by hand, and scores to the published decoder."""
    audio, visual = clips(maps)
    output: HeadOutput = model(audio, visual)
    for clip, pair in enumerate(zip(audio.numpy(), visual.numpy(), strict=True)):
        expected = by_hand(*pair)
        assert set(output.extras) - {"agva"} == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(numpy(output.extras[name])[clip], values, rtol=1e-7, atol=1e-10)
    decision = decide(numpy(output.extras["relevance"]), numpy(output.extras["category"]))
    np.testing.assert_array_equal(output.logits.argmax(-1).numpy(), decision)
    return output


def assert_order_has_no_effect(name: str) -> None:
    """Segments in another order have the same relevance, and their clip the same category."""
    model, _ = model_of(name)
    audio, visual = clips()
    order = torch.tensor([3, 0, 4, 1, 2])
    straight, shuffled = model(audio, visual).extras, model(audio[:, order], visual[:, order]).extras
    torch.testing.assert_close(shuffled["relevance"], straight["relevance"][:, order])
    torch.testing.assert_close(shuffled["category"], straight["category"])


def numpy(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.detach().numpy())


def assert_weak_loss(name: str) -> None:
    """Holds the weak loss of a head that scores background too to the loss in loops."""
    model, _ = model_of(name, supervision="weak")
    output = model(*clips())
    e, z = numpy(output.extras["relevance"]), numpy(output.extras["category"])
    assert z.shape == (B, K)
    found = model.loss(output, torch.tensor([2, 3])).item()
    assert found == pytest.approx(instance_loss(e, z, [2, 3]), rel=1e-9)
