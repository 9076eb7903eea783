"""Two gloo processes on this machine, for what several ranks do together."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing


def run_two_ranks(work: Callable[..., None], folder: Path, *more: str) -> None:
    """Calls `work(rank, folder, *more)`, a function of a module, in two processes of one group."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # Both are forked from one process that has imported what they need.
    multiprocessing.get_context("forkserver").set_forkserver_preload([work.__module__])
    arguments = (port, work, str(folder), *more)
    multiprocessing.start_processes(_as_rank, arguments, nprocs=2, start_method="forkserver")


def _as_rank(rank: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    work(rank, *arguments)
