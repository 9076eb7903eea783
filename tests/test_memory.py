"""Free memory, as psutil and a cgroup's files say it; memory that is kept."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avel import memory
from avel.memory import cgroup_bytes, free_memory


def cgroup(folder: Path, limit: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{5 * 2**30}\n")
    (folder / "memory.stat").write_text(f"anon {2**30}\ninactive_file {3 * 2**30}\n")
    return folder


def test_a_cgroup_leaves_its_limit_less_what_it_cannot_drop(tmp_path: Path) -> None:
    assert cgroup_bytes(cgroup(tmp_path / "job", str(6 * 2**30))) == 4 * 2**30
    assert cgroup_bytes(cgroup(tmp_path / "full", str(2**30))) == 0
    assert cgroup_bytes(cgroup(tmp_path / "free", "max")) is None
    assert cgroup_bytes(tmp_path / "none") is None


def test_free_memory_is_the_least_of_machine_and_cgroups(tmp_path: Path, monkeypatch: Any) -> None:
    folders = [cgroup(tmp_path / str(limit), str(limit)) for limit in (2**41, 2**31 + 2**30)]
    monkeypatch.setattr(memory, "_cgroups", lambda: folders)
    assert free_memory() == 2**30
    monkeypatch.setattr(memory, "_cgroups", lambda: [tmp_path / "none"])
    assert 0 < free_memory() < 2**50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keeping freed memory is about glibc's malloc")
@pytest.mark.parametrize("kept", [True, False])
def test_blocks_come_from_memory_that_is_kept(kept: bool) -> None:
    code = f"""
import ctypes, torch
from avel.memory import reuse_freed_memory
class Mallinfo(ctypes.Structure):  # mallinfo(3)
    _fields_ = [(name, ctypes.c_int) for name in "arena ordblks smblks hblks a b c d e f".split()]
libc = ctypes.CDLL(None)
libc.mallinfo.restype = Mallinfo
if {kept}:
    reuse_freed_memory()
before = libc.mallinfo().hblks
block = torch.ones(5_000_000)
print(libc.mallinfo().hblks - before)
"""
    mapped = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert mapped == (0 if kept else 1)  # blocks that are unmapped, page by page, when they are freed
