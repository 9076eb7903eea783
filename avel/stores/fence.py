"""Lets another process read a file first, since HDF5 crashes on some files that are damaged or forged.

That process serves further files too. It ends when it gets none for a while, or when this one ends.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from avel.errors import StoreError

TRIES = 3
"""Most times that a file is tried where SIGKILL ends the process.

That comes from a person or from a lack of memory, and says nothing of the file.
"""


class Fence:
    """Keeps the other process, and notes which files it has read to the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._read: set[tuple[int, int, int, int]] = set()

    def check(self, path: Path, hint: str) -> None:
        """Returns once the file was read in the other process; at once if it has not changed since then.

        Raises:
            StoreError: that process crashed on it, or took too long.
        """
        try:
            status = os.stat(path)
        except OSError:
            return  # whoever reads it says what is wrong
        version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        with self._lock:
            if version in self._read:
                return
            if end := self._try(path):
                raise StoreError(f"{path}: is damaged: HDF5 {end}, in a process that tried it", hint=hint)
            self._read.add(version)

    def _try(self, path: Path) -> str:
        """Returns what HDF5 did in the process while it read the file, "" if it read all of it."""
        end = ""
        for _ in range(TRIES):
            child = self._running()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                child.stdin.write(os.fsencode(path.absolute()) + b"\0")
                if child.stdout.read(1):
                    return ""
            except BrokenPipeError:
                pass
            except BaseException:  # Ctrl-C: a late answer would count for the next file
                self.close()
                raise
            code = child.wait()
            end = f"crashed on it ({signal.Signals(-code).name if code < 0 else f'exit status {code}'})"
            if code == -signal.SIGPROF:  # the timer of `fenced`
                end = "took too long to read it"
            if code not in (0, -signal.SIGKILL):  # 0: it ended meanwhile, since it was idle for long
                break
        return end

    def _running(self) -> subprocess.Popen[bytes]:
        """Returns the process; starts it unless it runs."""
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "avel.stores.fenced"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=same_modules(),
            )
        return self._child

    def close(self) -> None:
        """Ends the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


def same_modules() -> dict[str, str]:
    """Returns the environment in which a new process of Python finds the modules that this one finds.

    Begin such a process with -P: without it, files of the working folder would stand in for modules.
    """
    folders = [folder for folder in sys.path if isinstance(folder, str) and folder]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


_fence = Fence()
os.register_at_fork(after_in_child=lambda: globals().update(_fence=Fence()))
atexit.register(lambda: _fence.close())


def read_elsewhere_first(path: Path, hint: str) -> None:
    """Lets another process read an HDF5 file, unless it has done so; see `Fence.check`."""
    _fence.check(path, hint)
