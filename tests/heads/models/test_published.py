"""State dicts of the published networks: the heads give their scores, and say what does not fit."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avel.errors import ConfigError
from avel.heads.config import HEADS
from avel.heads.models.head import Head, Widths, build_model
from tests.heads.models import published_nets as nets
from tests.heads.models.published_nets import BANK, CELLS, D_A, D_V, K, T
from tests.heads.models.rivals import live_parameters
from tests.heads.synthetic import train_config

NETWORKS: dict[str, tuple[str, dict[str, Any], Callable[[], nn.Module]]] = {
    "avel": ("avel", {}, nets.AttNet),
    "avel-weak": ("avel", {"supervision": "weak"}, nets.AttNet),
    "avel-dmrn": ("avel", {"fusion": "dmrn"}, nets.ResidualNet),
    "psp": ("psp", {}, lambda: nets.PSPNet(0.099, relevance=False)),
    "psp-weak": ("psp", {"supervision": "weak"}, nets.WeakPSPNet),
    "cpsp": ("cpsp", {}, lambda: nets.PSPNet(0.099, relevance=True)),
    "cpsp-weak": ("cpsp", {"supervision": "weak"}, lambda: nets.PSPNet(0.095, relevance=True)),
    "avsdn": ("avsdn", {}, nets.SequenceNet),
    "cmran": ("cmran", {}, lambda: nets.CMRANNet(weak=False)),
    "cmran-weak": ("cmran", {"supervision": "weak"}, lambda: nets.CMRANNet(weak=True)),
    "cmbs": ("cmbs", {}, nets.CMBSNet),
    "cmbs-weak": ("cmbs", {"supervision": "weak"}, nets.WeakCMBSNet),
    "cace": ("cace", {}, lambda: nets.CMBSNet(psi=0.3)),
    "jcan": ("jcan", {"recursions": 2}, lambda: nets.JCANNet(2)),
    "lesp": ("lesp", {"bank_size": BANK}, lambda: nets.MemoryNet(weak=False)),
    "lesp-weak": ("lesp", {"bank_size": BANK, "supervision": "weak"}, lambda: nets.MemoryNet(weak=True)),
    "vscg": ("vscg", {}, nets.VSCGNet),
    "vscg-weak": ("vscg", {"supervision": "weak"}, nets.WeakVSCGNet),
}


PARAMETERS = {
    "psp": (1_548_657, 1_253_902),
    "cpsp": (1_537_870, 1_537_870),
    "avsdn": (2_162_510, 2_162_510),
    "cmran": (9_509_150, 9_509_407),
    "cmbs": (9_200_473, 9_395_518),
    "cace": (9_283_417, None),
    "jcan": (22_776_510, None),
    "vscg": (2_508_366, 2_257_166),
}
"""Head -> parameters that learn in the published networks, full and weak."""


def head_of(name: str, seed: int = 3, **settings: Any) -> Head:
    config = train_config(head=name, **settings)
    return build_model(config, Widths(D_A, D_V, K, CELLS, T), seed).head.eval()


def network(case: str) -> nn.Module:
    """The published network with random weights, larger than at the start so that no part is too faint."""
    torch.manual_seed(7)
    found = NETWORKS[case][2]().eval()
    with torch.no_grad():
        for weight in found.parameters():
            weight.mul_(1.5)
    return found


def clips() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    return torch.randn(3, T, D_A, generator=random), torch.randn(3, T, 2, 2, D_V, generator=random)


@pytest.mark.parametrize("case", NETWORKS)
def test_the_head_gives_the_scores_of_the_published_network(case: str) -> None:
    name, settings, _ = NETWORKS[case]
    theirs, head = network(case), head_of(name, **settings)
    audio, maps = clips()
    with torch.no_grad():
        wanted = theirs(audio, maps.flatten(2, 3))
        before = head(audio, maps)
        head.load_published(theirs.state_dict())
        output = head(audio, maps)
    found = output.extras | {"logits": output.logits, "probabilities": output.logits.softmax(-1)}
    for key, values in wanted.items():
        torch.testing.assert_close(found[key], values, rtol=1e-5, atol=1e-5)
    assert not torch.equal(before.logits, output.logits)


def test_every_head_with_public_code_is_compared() -> None:
    compared = {name for name, _, _ in NETWORKS.values()}
    assert compared == {name for name in HEADS if HEADS[name].layout is not Head.layout}
    assert compared >= {"avel", "psp", "cpsp", "cmran", "cmbs", "cace", "jcan", "lesp", "vscg"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
    ids=["DataParallel", "checkpoint", "float64"],
)
def test_a_state_dict_comes_as_it_was_saved(wrap: Callable[[dict[str, Tensor]], Any]) -> None:
    plain, wrapped = head_of("psp"), head_of("psp", seed=4)
    state = network("psp").state_dict()
    plain.load_published(state)
    wrapped.load_published(wrap(state))
    for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    head, state = head_of("psp"), network("psp").state_dict()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    del state["psp.v_fc.weight"]
    state["psp.extra"] = torch.zeros(1)
    state["L2.weight"] = torch.zeros(29, 64)
    words = (
        r"jasongief/PSP_CVPR_2021.*1 missing: psp.v_fc.weight; 1 without a place: psp.extra; "
        r"1 of another shape: L2.weight \(29, 64\), the head has \(5, 64\)"
    )
    with pytest.raises(ConfigError, match=words):
        head.load_published(state)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize(
    ("case", "settings", "words"),
    [
        ("psp", {"supervision": "weak"}, "missing: visual|missing: linear_v|missing"),
        ("avel", {"fusion": "dmrn"}, r"missing: U_a\.0\.weight"),
        ("cmbs-weak", {}, r"missing: .*audio_visual_rnn_layer"),
        ("jcan", {"recursions": 1}, r"without a place: coattn\.dcn_layers\.1"),
        ("lesp", {"bank_size": 4}, r"of another shape: aligned_bank\.cls_a_queue \(4, 3, 12\)"),
    ],
)
def test_another_network_of_the_same_head_is_refused(case: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        head_of(NETWORKS[case][0], **settings).load_published(network(case).state_dict())


@pytest.mark.parametrize(
    ("case", "name"),
    [("avel", "L1.weight"), ("lesp", "aligned_bank.cls_v_queue"), ("lesp", "aligned_bank.cls_sc_queue")],
)
def test_a_tensor_of_too_few_dimensions_is_of_another_shape(case: str, name: str) -> None:
    state = network(case).state_dict() | {name: torch.ones(5)}
    with pytest.raises(ConfigError, match=rf"1 of another shape: {re.escape(name)} \(5,\)"):
        head_of(NETWORKS[case][0], **NETWORKS[case][1]).load_published(state)


def test_a_bank_that_is_not_full_is_refused() -> None:
    state = network("lesp").state_dict()
    state["aligned_bank.cls_sc_queue"][2, 1:] = 0
    with pytest.raises(ConfigError, match="the bank of event 2 has 1 of 3 examples"):
        head_of("lesp", bank_size=BANK).load_published(state)


def test_a_head_without_public_code_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"head 'dam' has no published network.*\n.*heads that have one: avel, "
    ):
        head_of("dam").load_published({})


@pytest.mark.parametrize("name", PARAMETERS)
def test_as_many_parameters_learn_as_in_the_published_network(name: str) -> None:
    full, weak = PARAMETERS[name]
    assert live_parameters(name) == full
    assert weak is None or live_parameters(name, "weak") == weak
