"""Training from weights of others, and evaluating them: published networks, trials, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avel.cli import cli
from avel.console import DONE, USAGE, run
from avel.errors import ConfigError, MissingPathError, StoreError, TrainingError, WeightsError
from avel.heads.checkpoint import evaluate_checkpoint
from avel.heads.train import train_head
from avel.heads.training.records import HeadInputs, load_head
from avel.stores.features import FeatureCache
from avel.stores.files import sha256_file
from avel.stores.runs import Run
from tests.heads.models.published_nets import D_A, AttNet, K, PSPNet
from tests.heads.synthetic import write_cache

STILL: dict[str, Any] = {"epochs": 1, "lr": 0.0, "device": "cpu"}
"""Training that changes nothing."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of maps with the widths and classes of the published networks written out in tests."""
    random = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("maps") / "c.h5"
    arrays = ("f_a", "f_v", "cnn_a", "maps")
    return write_cache(path, events=K - 1, arrays=arrays, cnn_a=random.normal(size=(59, 6, D_A)))


@pytest.fixture(scope="module")
def psp() -> PSPNet:
    torch.manual_seed(1)
    return PSPNet(0.099, relevance=False).eval()


def accuracy_of(network: PSPNet, cache: Path) -> float:
    """Percent of test segments that the published network has right."""
    opened = FeatureCache.open(cache)
    test = opened.samples.take(np.flatnonzero(opened.samples.split == "test"))
    audio, maps = (torch.from_numpy(opened.read(name)[test.video]).float() for name in ("cnn_a", "maps"))
    with torch.no_grad():
        found = network(audio, maps.flatten(2, 3))["logits"].argmax(-1).numpy()
    return float(100 * (found == opened.labels(test)).mean())


@pytest.mark.parametrize("suffix", [".pt", ".pth.tar", ".safetensors"])
def test_a_published_network_is_started_from_and_evaluated(
    cache: Path, psp: PSPNet, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"psp{suffix}"
    state = {f"module.{name}": value.contiguous() for name, value in psp.state_dict().items()}
    save_file(state, file) if suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    found = train_head(cache, tmp_path / "run", head="psp", init=str(file), seeds=2, **STILL)
    assert "weights of jasongief/PSP_CVPR_2021, psp_net of fully_model.py" in capsys.readouterr().err
    wanted = accuracy_of(psp, cache)
    assert found.groups["psp"].accuracy_percent.mean == pytest.approx(wanted)
    assert found.groups["psp"].accuracy_percent.std == 0
    found = evaluate_checkpoint(file, cache, head="psp", device="cpu")
    assert found.accuracy_percent.mean == pytest.approx(wanted)
    assert (found.samples, found.split, found.predictions) == (12, "test", (str(file),))
    inputs = Run.open(tmp_path / "run").read_inputs(HeadInputs)
    assert inputs.init == {str(file): sha256_file(file)}


def test_training_goes_on_from_there(cache: Path, psp: PSPNet, tmp_path: Path) -> None:
    torch.save(psp.state_dict(), tmp_path / "psp.pt")
    first, last = {}, {}
    for init in ("", str(tmp_path / "psp.pt")):
        folder = tmp_path / f"run{bool(init)}"
        train_head(cache, folder, head="psp", init=init, epochs=2, dropout=0.0, device="cpu")
        lines = Run.open(folder).metrics()
        first[init], last[init] = lines[0]["loss"], lines[-1]["loss"]
    assert len(set(first.values())) == 2
    assert all(last[init] < first[init] for init in first)


def test_a_trial_of_ones_own_is_started_from(cache: Path, tmp_path: Path) -> None:
    options = {"head": "mlp", "standardise": True, "device": "cpu"}
    before = train_head(cache, tmp_path / "a", epochs=3, **options)
    file = tmp_path / "a" / "trials" / "seed=0.safetensors"
    again = train_head(cache, tmp_path / "b", init=str(file), **(STILL | options))
    assert again.groups["mlp"].accuracy_percent == before.groups["mlp"].accuracy_percent
    model = load_head(tmp_path / "a")
    torch.save(model.head.state_dict(), tmp_path / "head.pt")
    plain = evaluate_checkpoint(tmp_path / "head.pt", cache, head="mlp", standardise=True, device="cpu")
    assert plain.accuracy_percent.mean == before.groups["mlp"].accuracy_percent.mean


def test_other_weights_under_the_same_name_are_refused(cache: Path, psp: PSPNet, tmp_path: Path) -> None:
    file = tmp_path / "psp.pt"
    torch.save(psp.state_dict(), file)
    train_head(cache, tmp_path / "run", head="psp", init=str(file), **STILL)
    torch.manual_seed(2)
    torch.save(PSPNet(0.099, relevance=False).state_dict(), file)
    with pytest.raises(StoreError, match="init"):
        train_head(cache, tmp_path / "run", head="psp", init=str(file), **STILL)


def test_what_is_no_state_dict_of_the_head_is_refused(cache: Path, psp: PSPNet, tmp_path: Path) -> None:
    torch.save(psp, tmp_path / "whole.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    torch.save(AttNet().state_dict(), tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "cut.safetensors").write_bytes(b"12345678{")
    cases: list[tuple[str, type[Exception], str]] = [
        ("whole.pt", WeightsError, r"whole\.pt: refused.*\n.*torch\.save\(network\.state_dict\(\)"),
        ("none.pt", WeightsError, r"none\.pt: holds no state dict"),
        ("other.pt", ConfigError, r"other\.pt: not the state dict of jasongief/PSP_CVPR_2021.*missing: "),
        ("text.pt", WeightsError, r"text\.pt: "),
        ("cut.safetensors", StoreError, r"cut\.safetensors: damaged"),
        ("absent.pt", WeightsError, r"absent\.pt: no such weights file"),
        ("absent.safetensors", MissingPathError, r"absent\.safetensors: no such file"),
        (".", WeightsError, "is a folder\n.*those of a run are its trials/"),
    ]
    for name, error, words in cases:
        with pytest.raises(error, match=words):
            train_head(cache, tmp_path / "run", head="psp", init=str(tmp_path / name), **STILL)
        assert not (tmp_path / "run").exists()
    torch.save(AttNet().state_dict(), tmp_path / "avel.pt")
    with pytest.raises(ConfigError, match=r"avel\.pt: not the weights of this head: .*Missing key"):
        train_head(cache, tmp_path / "run", head="mlp", init=str(tmp_path / "avel.pt"), **STILL)


def test_the_command_evaluates_a_file(
    cache: Path, psp: PSPNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "psp.pt")
    torch.save(psp.state_dict(), file)
    words = ["evaluate", file, "--cache", str(cache), "--set", "head=psp", "--set", "device=cpu"]
    assert run(cli, [*words, "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy_percent"]["mean"] == pytest.approx(accuracy_of(psp, cache))
    assert run(cli, [*words, "--split", "val"]) == DONE
    assert "val accuracy" in capsys.readouterr().out
    assert run(cli, ["evaluate", file, "--set", "head=psp"]) == USAGE
    assert ": --set and --config need --cache" in capsys.readouterr().err
    for name in ("split", "file", "config"):  # arguments of `evaluate_checkpoint`
        assert run(cli, [*words, "--set", f"{name}=val"]) == USAGE
        assert f"no setting named {name!r}" in capsys.readouterr().err
    assert run(cli, [*words, "--set", "tacma.theta=0.2"]) == USAGE
    assert "--set tacma.theta=0.2 has no effect: tacma is not chosen" in capsys.readouterr().err
    (tmp_path / "heads.toml").write_text("[train-head.tacma]\ntheta = 0.2\n")  # for several heads
    assert run(cli, [*words, "--config", str(tmp_path / "heads.toml")]) == DONE
    shutil.copy(cache, tmp_path / "copy.h5")
    assert run(cli, ["evaluate", file, "--cache", str(tmp_path / "copy.h5"), "--set", "head=mlp"]) == USAGE
    assert "not the weights of this head" in capsys.readouterr().err


def test_a_cache_of_test_samples_alone_is_enough_to_evaluate_weights(tmp_path: Path) -> None:
    cache, run = write_cache(tmp_path / "c.h5"), tmp_path / "run"
    wanted = train_head(cache, run, head="mlp", epochs=2, device="cpu").groups["mlp"].accuracy_percent
    weights = run / "trials" / "seed=0.safetensors"
    samples = FeatureCache.open(cache).samples
    split = np.where(samples.split == "test", "test", "")
    alone = write_cache(tmp_path / "test set.h5", split=split)
    assert evaluate_checkpoint(weights, alone, head="mlp", device="cpu").accuracy_percent == wanted
    save_file(load_head(run).head.state_dict(), tmp_path / "head.safetensors")
    with pytest.raises(StoreError, match="no train samples to standardise by"):
        evaluate_checkpoint(tmp_path / "head.safetensors", alone, head="mlp", device="cpu")
    bare = {"head": "mlp", "standardise": False, "device": "cpu"}
    assert evaluate_checkpoint(tmp_path / "head.safetensors", alone, **bare).samples == 12
    with pytest.raises(TrainingError, match="no sample of split 'val'") as refused:
        evaluate_checkpoint(weights, alone, split="val", head="mlp", device="cpu")
    assert refused.value.hint == f"avel inspect '{alone}'"
