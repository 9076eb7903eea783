"""A disk that fills up under a command: one line, exit 1, and with more room the same command goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avel.cli import cli
from avel.console import DONE, ERROR, run
from avel.progress import set_verbosity
from tests.heads.synthetic import write_cache
from tests.pipeline.caching.small_stores import NAMES, encoder_run, write_store
from tests.small_disk import SmallDisk, check_words, small_disk

HEAD = ("--epochs", "2", "--set", "d_h=8", "--set", "d_e=8", "--set", "together=never")
AVBT = ("--visual-backbone", "tiny", "--audio-backbone", "tiny", "--visual-weights", "random")
AVBT += ("--audio-weights", "random", "--hidden", "4", "--projector", "16-16", "--crop-size", "28")
AVBT += ("--epochs", "3", "--batch-size", "3", "--warmup-epochs", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    """Commands run quietly here, and tests after these hear notes again."""
    yield
    set_verbosity(1)


def refusals(disk: SmallDisk, step: int, capsys: pytest.CaptureFixture[str], *command: str | Path) -> int:
    """Runs a command on a full disk, with `step` bytes more each time until it is done -> its refusals."""
    disk.fill()
    said = ""
    for refused in range(100):
        code = run(cli, ["-q", *map(str, command)])
        said = capsys.readouterr().err
        if code == DONE:
            assert not list(disk.path.rglob("*.partial"))
            return refused
        assert code == ERROR
        check_words(said, disk.path)
        disk.give(step)
    raise AssertionError(f"never done: {said}")


def same_tensors(one: Path, other: Path) -> None:
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
    for file in files:
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), file


@pytest.mark.parametrize(
    "command", [("train-head", "--seeds", "2"), ("sweep", "--set", "theta=0,0.03")], ids=lambda item: item[0]
)
def test_heads(command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, (name, *options) = write_cache(tmp_path / "features.h5"), command
    whole = tmp_path / "whole"
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        made = disk.path / "run"
        assert refusals(disk, 4096, capsys, name, cache, made, *options, *HEAD) > 8
        assert run(cli, ["-q", name, str(cache), str(whole), *options, *HEAD]) == DONE
        same_tensors(made, whole)
        for file in ("predictions.parquet", "metrics.jsonl", "config.toml"):
            assert (made / file).read_bytes() == (whole / file).read_bytes(), file
        found, wanted = (json.loads((folder / "results.json").read_text()) for folder in (made, whole))
        names_own_place = {"run": "", "checksum": ""}
        assert found | names_own_place == wanted | names_own_place


def test_pretrain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_store(tmp_path / "clips.zarr", NAMES)
    with small_disk(tmp_path / "disk", "size=32m") as disk:
        made = disk.path / "run"
        assert refusals(disk, 512 << 10, capsys, "pretrain", store, made, *AVBT) > 4
        assert run(cli, ["-q", "pretrain", str(store), str(tmp_path / "whole"), *AVBT]) == DONE
        same_tensors(made, tmp_path / "whole")


def test_cache_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, encoder = write_store(tmp_path / "clips.zarr", NAMES), encoder_run(tmp_path / "encoder")
    options = ("--encoder", str(encoder), "--device", "cpu", "--keep-maps")
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        made, whole = disk.path / "c.h5", tmp_path / "whole.h5"
        assert refusals(disk, 64 << 10, capsys, "cache-features", store, made, *options) > 4
        assert run(cli, ["-q", "cache-features", str(store), str(whole), *options]) == DONE
        with h5py.File(made, "r") as a, h5py.File(whole, "r") as b:
            assert a.attrs["digest"] == b.attrs["digest"]
            for name in ("f_a", "f_v", "maps", "sample", "video", "event_sample", "event_category"):
                np.testing.assert_array_equal(a[name], b[name])
