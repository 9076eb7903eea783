"""Finds torch devices by name. Of the modules beside it only `nn` may import torch too."""

import re

import torch

from avel.errors import ConfigError


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
