"""Finds torch devices by name. Of the modules beside it only `nn` may import torch too."""

import re
from pathlib import Path

import torch

from avel.errors import ConfigError
from avel.progress import note

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
    if not re.fullmatch(r"(cpu|cuda)(:\d+)?", name):
        raise ConfigError(f"no device named {name!r}", hint="--device cpu, cuda, cuda:1 or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= there:
        found = f"{there or 'no'} GPU{'s' * (there > 1)}"
        hint = f"--device cuda:{there - 1} is the last, or auto" if there else "--device cpu, or auto"
        raise ConfigError(f"device {name!r} is not there: torch finds {found}", hint=hint)
    return device


def note_slow_bfloat16(device: torch.device, dtype: str) -> None:
    """Says on stderr where bfloat16 was chosen on a processor that has no instructions for it."""
    if dtype != "bfloat16" or device.type != "cpu" or not CPU_INFO.is_file():
        return
    if not BFLOAT16_FLAGS & set(CPU_INFO.read_text().split()):
        note(
            "this processor has no bfloat16 (neither AMX nor AVX-512-BF16): "
            "CNNs take 2.5 to 20 times as long as with --dtype float32"
        )
