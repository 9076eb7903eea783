"""Chooses devices and number formats by name, and says what a device can do."""

import ctypes
import functools
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avel.errors import ConfigError, DeviceMemoryError
from avel.progress import note
from avel.text import plural

NVJPEG_HARDWARE = 3
"""nvJPEG's number for its backend that runs on the decoder engine."""
CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}
"""Flags of processors that multiply in bfloat16: Intel's and AMD's, and ARM's."""


def choose_device(name: str) -> torch.device:
    """Returns the device that is named cpu, cuda, cuda:N, or auto: a GPU if there is one, else the CPU.

    Raises:
        ConfigError: another name, or a GPU that is not there.
    """
    there = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:(0|[1-9][0-9]?))?", name):
        raise ConfigError(f"no device named {name!r}", hint="--device cpu, cuda, cuda:1 or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= there:
        found = plural(there, "GPU") if there else "no GPU"
        hint = f"--device auto; the last GPU is cuda:{there - 1}" if there else "--device cpu, or auto"
        raise ConfigError(f"device {name!r} is not there: torch finds {found}", hint=hint)
    return device


def note_slow_bfloat16(device: torch.device, dtype: str) -> None:
    """Notes that bfloat16 is slow, if it was chosen on a processor that has no instructions for it."""
    if dtype != "bfloat16" or device.type != "cpu" or not CPU_INFO.is_file():
        return
    if not BFLOAT16_FLAGS & set(CPU_INFO.read_text().split()):
        note(
            "this processor has no bfloat16 (neither AMX nor AVX-512-BF16): "
            "CNNs take 2.5 to 20 times as long as with --dtype float32"
        )


def choose_dtype(name: str, device: torch.device) -> str:
    """Returns the number format of a name; auto is bfloat16 on a GPU that computes it, else float32."""
    if name != "auto":
        return name
    computes_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if computes_it else "float32"


def hardware_of(device: torch.device) -> str:
    """Returns a device in words for the provenance; on a GPU they say that float32 products are in TF32."""
    return f"{torch.cuda.get_device_name(device)}, float32 as TF32" if device.type == "cuda" else "cpu"


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """Takes products of float32 in TF32 on a GPU, and restores what was set before."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def explain_full_memory(hint: str) -> Iterator[None]:
    """Turns a GPU that is out of memory into an error that says what to do.

    Raises:
        DeviceMemoryError: the GPU is out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        what = str(error).partition(". GPU ")[0]
        raise DeviceMemoryError(f"the GPU's memory is full: {what}", hint=hint) from None


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """Returns values in memory from which a GPU copies while the host goes on; on a CPU as they are."""
    return values.pin_memory() if device.type == "cuda" else values


def decodes_jpeg(device: torch.device, decode: str) -> bool:
    """Returns whether a GPU decodes JPEG files: as `decode` says, for "auto" if it has a JPEG engine.

    Without the engine, nvJPEG decodes one file at a time on the calling thread, slower than a few cores.
    """
    if device.type != "cuda" or decode == "cpu":
        return False
    return decode == "gpu" or has_jpeg_engine(device)


@functools.cache
def has_jpeg_engine(device: torch.device) -> bool:
    """Returns whether this process may use a hardware JPEG decoder of a GPU; found by opening one."""
    nvjpeg = load_nvjpeg()
    if nvjpeg is None:
        return False
    torch.zeros(1, device=device)  # nvJPEG takes the current context, which torch makes here
    handle = ctypes.c_void_p()
    if nvjpeg.nvjpegCreateEx(NVJPEG_HARDWARE, None, None, 0, ctypes.byref(handle)) != 0:
        return False
    nvjpeg.nvjpegDestroy(handle)
    return True


def load_nvjpeg() -> Any:
    """Loads the nvJPEG that torchvision comes with; None where it has none."""
    package = importlib.util.find_spec("torchvision")
    folder = Path(package.origin).parents[1] if package is not None and package.origin else Path()
    places = ("torchvision.libs", "nvidia/*/lib")
    files = [file for place in places for file in sorted(folder.glob(f"{place}/libnvjpeg*"))]
    return ctypes.CDLL(str(files[0])) if files else None
