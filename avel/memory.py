"""Measures free memory (the machine's, the container's, the GPU's), and has glibc reuse freed memory."""

from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
CPU = torch.device("cpu")
LARGE_BLOCK_BYTES = 30 * 2**20
"""Just below 32 MiB, the largest block that glibc adapts to."""


def free_memory(device: torch.device = CPU) -> int:
    """Returns the bytes that can be allocated without swapping, on `device` too if it is a GPU."""
    free: list[int] = [psutil.virtual_memory().available]
    free += [limit for folder in _cgroups() if (limit := cgroup_bytes(folder)) is not None]
    if device.type == "cuda":
        free.append(torch.cuda.mem_get_info(device)[0])
    return min(free)


def reuse_freed_memory() -> None:
    """Makes glibc keep memory that a training step frees for the next one, instead of returning it.

    glibc keeps blocks up to a certain size. It raises this size to that of the largest block freed so far, up
    to 32 MiB (mallopt(3), M_MMAP_THRESHOLD). So this function allocates one block and frees it. Other
    allocators are not affected.
    """
    torch.empty(LARGE_BLOCK_BYTES, dtype=torch.uint8)


def _cgroups() -> list[Path]:
    """Lists the cgroup (v2) of this process and its parents."""
    listed = Path("/proc/self/cgroup")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    own = [CGROUPS / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return [folder for each in own for folder in (each, *each.parents) if folder.is_relative_to(CGROUPS)]


def cgroup_bytes(folder: Path) -> int | None:
    """Returns the bytes that a cgroup may still take, inactive file cache counted as free; None: no limit."""
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - int(used) + int(statistics.get("inactive_file", 0)))
