"""avel/nn.py: audio-guided visual attention against loops; LSTMs in bfloat16 where a device has them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avel.heads.models.parts import BiLSTM
from avel.nn import AGVA, has_bfloat16_lstm
from tests.heads.by_hand import agva


def test_attends_as_published() -> None:
    torch.manual_seed(0)
    attention = AGVA(5, 12, 4).double()
    audio, cells = torch.randn(2, 3, 5).double(), torch.randn(2, 3, 4, 12).double()
    named = {name: value.numpy() for name, value in attention.state_dict().items()}
    with torch.no_grad():
        attended, weights = attention(audio, cells)
    for clip in range(2):
        np.testing.assert_allclose(
            attended[clip], agva(named, audio[clip].numpy(), cells[clip].numpy()), rtol=1e-10
        )
    torch.testing.assert_close(torch.einsum("btn,btnc->btc", weights, cells), attended)


def test_weights_are_float32_under_bfloat16() -> None:
    attention = AGVA(5, 12, 4).bfloat16()
    attended, weights = attention(torch.randn(1, 2, 5).bfloat16(), torch.randn(1, 2, 4, 12).bfloat16())
    assert (attended.dtype, weights.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2))


CPU = torch.device("cpu")
REFUSAL = "could not create a primitive descriptor for the LSTM forward propagation primitive"
plain = nn.LSTM.forward


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    has_bfloat16_lstm.cache_clear()
    yield
    has_bfloat16_lstm.cache_clear()


def in_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu")


def as_without(lstm: nn.LSTM, x: Tensor, *rest: Any) -> Any:
    """What oneDNN does on a processor for which it has no LSTM in bfloat16."""
    if in_bfloat16():
        raise RuntimeError(f"{REFUSAL}. Run workload with environment variable ONEDNN_VERBOSE=all")
    return plain(lstm, x, *rest)


def as_without_in(refused: Callable[[nn.LSTM, Tensor], bool]) -> Callable[..., Any]:
    """The same, but only of calls that `refused` picks."""

    def forward(lstm: nn.LSTM, x: Tensor, *rest: Any) -> Any:
        return (as_without if refused(lstm, x) else as_with)(lstm, x, *rest)

    return forward


def as_with(lstm: nn.LSTM, x: Tensor, *rest: Any) -> Any:
    """What comes out on a processor that has one: the same numbers, rounded to bfloat16."""
    if not in_bfloat16():
        return plain(lstm, x, *rest)
    with torch.autocast("cpu", enabled=False):
        hidden, state = plain(lstm, x.float(), *rest)
    return hidden.bfloat16(), state


def layer_and_clips() -> tuple[BiLSTM, Tensor]:
    torch.manual_seed(3)
    return BiLSTM(12), torch.randn(4, 6, 12)


def under_autocast(layer: nn.Module, clips: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        hidden: Tensor = layer(clips)
    return hidden


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bilstm_works_in_bfloat16_on_this_processor(dtype: torch.dtype) -> None:
    """Training and inference, of inputs that autocast has cast and of others, near float32."""
    layer, clips = layer_and_clips()
    expected = layer(clips)
    expected.square().sum().backward()
    gradient = layer.lstm.weight_ih_l0.grad
    layer.zero_grad()
    hidden = under_autocast(layer, clips.to(dtype)).float()
    hidden.square().sum().backward()
    torch.testing.assert_close(hidden, expected, atol=0.01, rtol=0.02)
    assert (layer.lstm.weight_ih_l0.grad - gradient).norm() < 0.02 * gradient.norm()
    with torch.inference_mode():
        inferred = under_autocast(layer, clips.to(dtype)).float()
    torch.testing.assert_close(inferred, expected.detach(), atol=0.01, rtol=0.02)


def test_without_one_lstms_stay_in_float32_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nn.LSTM, "forward", as_without)
    layer, clips = layer_and_clips()
    expected = layer(clips)
    for dtype, exact in ((torch.float32, True), (torch.bfloat16, False)):
        hidden = under_autocast(layer, clips.to(dtype))
        assert hidden.dtype == torch.float32
        assert torch.equal(hidden, expected) == exact
    said = capsys.readouterr().err.splitlines()
    assert said == [f"cpu has no LSTM in bfloat16 ({REFUSAL}): LSTMs are computed in float32"]


@pytest.mark.parametrize(
    "refused",
    [
        lambda lstm, x: x.dtype == torch.float32,
        lambda lstm, x: x.dtype == torch.bfloat16,
        lambda lstm, x: torch.is_grad_enabled(),
        lambda lstm, x: not torch.is_grad_enabled(),
        lambda lstm, x: lstm.bidirectional,
    ],
    ids=["float32", "bfloat16", "training", "inference", "bidirectional"],
)
def test_half_of_one_is_none(monkeypatch: pytest.MonkeyPatch, refused: Callable[..., bool]) -> None:
    monkeypatch.setattr(nn.LSTM, "forward", as_without_in(refused))
    assert not has_bfloat16_lstm(CPU)
    layer, clips = layer_and_clips()
    assert torch.equal(under_autocast(layer, clips), layer(clips))


def test_with_one_lstms_follow_autocast_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nn.LSTM, "forward", as_with)
    layer, clips = layer_and_clips()
    with torch.inference_mode():  # predict asks in here first
        assert under_autocast(layer, clips).dtype == torch.bfloat16
    assert torch.equal(under_autocast(layer, clips), layer(clips).bfloat16())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("forward", [as_with, as_without])
def test_asking_changes_no_random_number(
    monkeypatch: pytest.MonkeyPatch, forward: Callable[..., Any]
) -> None:
    monkeypatch.setattr(nn.LSTM, "forward", forward)
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    has_bfloat16_lstm(CPU)
    assert torch.equal(torch.rand(4), expected)


def test_float32_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def counted(lstm: nn.LSTM, x: Tensor, *rest: Any) -> Any:
        asked.append(x)
        return plain(lstm, x, *rest)

    monkeypatch.setattr(nn.LSTM, "forward", counted)
    layer, clips = layer_and_clips()
    layer(clips)
    assert len(asked) == 1
