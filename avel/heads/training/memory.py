"""Measures free memory: the machine's, the job's or container's, the GPU's; and keeps what was freed."""

from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
CPU = torch.device("cpu")
KEPT_BYTES = 30 * 2**20
"""Just below the largest block, 32 MiB, that glibc learns from."""


def free_memory_gb(device: torch.device = CPU) -> float:
    """Returns the memory that can be had without swapping, in GB, also on `device`."""
    free: list[int] = [psutil.virtual_memory().available]
    free += [limit for folder in _cgroups() if (limit := cgroup_bytes(folder)) is not None]
    if device.type == "cuda":
        free.append(torch.cuda.mem_get_info(device)[0])
    return min(free) / 2**30


def keep_freed_memory() -> None:
    """Has glibc keep what a training step frees for the next step, where it would unmap it, page by page.

    It keeps blocks as large as one that was freed before, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    Allocators that keep theirs anyway lose nothing.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)


def _cgroups() -> list[Path]:
    """Returns the cgroup (v2) of this process, and those that it lies in."""
    listed = Path("/proc/self/cgroup")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    own = [CGROUPS / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return [folder for each in own for folder in (each, *each.parents) if folder.is_relative_to(CGROUPS)]


def cgroup_bytes(folder: Path) -> int | None:
    """Returns what a cgroup may still take, file pages that it can drop included; None without a limit."""
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - int(used) + int(statistics.get("inactive_file", 0)))
