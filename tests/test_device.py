"""Devices by name, and what is said of those that are not there."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from avel import device
from avel.device import (
    choose_device,
    choose_dtype,
    decodes_jpeg,
    hardware_of,
    has_jpeg_engine,
    note_slow_bfloat16,
    tf32,
)
from avel.errors import ConfigError
from tests.fake_cuda import fake_cuda


@pytest.mark.parametrize("name", ["", "meta", "mps", "gpu", "cuda:x", "cuda:-1", "cuda:01", "cpu:٣", "xla"])
def test_a_device_that_avel_cannot_use_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no device named '{name}'"):
        choose_device(name)


@pytest.mark.parametrize(
    ("gpus", "name", "found", "hint"),
    [
        (0, "cuda", "no GPU", "--device cpu, or auto"),
        (0, "cuda:9", "no GPU", "--device cpu, or auto"),
        (1, "cuda:9", "1 GPU", "--device auto; the last GPU is cuda:0"),
        (2, "cuda:2", "2 GPUs", "--device auto; the last GPU is cuda:1"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_with_the_count_of_those_that_are(
    monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, found: str, hint: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert caught.value.message == f"device {name!r} is not there: torch finds {found}"
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [(0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_a_device_by_name(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("flags", "dtype", "name", "said"),
    [
        ("avx2 fma", "bfloat16", "cpu", True),
        ("avx2 avx512_bf16", "bfloat16", "cpu", False),
        ("fp asimd bf16", "bfloat16", "cpu", False),
        ("avx2 fma", "float32", "cpu", False),
        ("avx2 fma", "bfloat16", "cuda", False),
    ],
)
def test_bfloat16_without_instructions_for_it_is_said_to_be_slow(
    flags: str,
    dtype: str,
    name: str,
    said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    note_slow_bfloat16(torch.device(name), dtype)
    assert ("--dtype float32" in capsys.readouterr().err) is said


@pytest.mark.parametrize(
    ("asked", "place", "has_it", "chosen"),
    [
        ("auto", "cuda", True, "bfloat16"),
        ("auto", "cuda", False, "float32"),
        ("auto", "cpu", True, "float32"),
        ("float32", "cuda", True, "float32"),
        ("bfloat16", "cpu", True, "bfloat16"),
    ],
)
def test_gpus_that_compute_bfloat16_take_it_unless_asked_otherwise(
    asked: str, place: str, has_it: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_it and not including_emulation
    )
    assert choose_dtype(asked, torch.device(place)) == chosen


def test_float32_is_taken_in_tf32_on_a_gpu_alone_and_only_meanwhile() -> None:
    before = torch.get_float32_matmul_precision()
    for name, inside in (("cuda", "high"), ("cpu", before)):
        with tf32(torch.device(name)):
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == before


def test_the_provenance_names_the_gpu_and_tf32() -> None:
    with fake_cuda():
        found = [hardware_of(torch.device(name)) for name in ("cuda:0", "cpu")]
    assert found == ["a fake GPU, float32 as TF32", "cpu"]


@pytest.mark.parametrize(("status", "engine"), [(0, True), (7, False), (None, False)])
def test_a_jpeg_engine_is_there_where_nvjpeg_can_open_it(
    status: int | None, engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    nvjpeg = SimpleNamespace(
        nvjpegCreateEx=lambda backend, *more: opened.append(backend) or status,
        nvjpegDestroy=lambda handle: opened.append(-1),
    )
    monkeypatch.setattr(device, "load_nvjpeg", lambda: None if status is None else nvjpeg)
    gpu = torch.device("cuda", 0)
    has_jpeg_engine.cache_clear()
    with fake_cuda():
        found = [decodes_jpeg(gpu, decode) for decode in ("auto", "auto", "gpu", "cpu")]
    has_jpeg_engine.cache_clear()
    assert found == [engine, engine, True, False]
    assert opened == {0: [3, -1], 7: [3], None: []}[status], "asked once"
    assert not decodes_jpeg(torch.device("cpu"), "gpu")
