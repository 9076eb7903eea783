"""A driver that starts `extract`, kills it at random moments, and starts it again: run as a script.

It imports everything once and forks for each run, so that a run costs its own start only. Prints how often it
killed the run and how often a decoding process, and whether the last run came to its end.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from avel.pipeline.staging.extract import extract
from avel.progress import set_verbosity
from avel.stores.datasets.formats import read_dataset
from tests.pipeline.staging.small_clips import SMALL


def run(clips: str, store: str) -> None:
    """One whole run, in a process of its own."""
    import distributed  # noqa: F401 - loaded before the fork's clock runs

    set_verbosity(0)
    code = 1
    try:
        extract(read_dataset(clips), store, SMALL, workers=2)
        code = 0
    finally:
        os._exit(code)


def children(parent: int) -> list[int]:
    """Processes whose parent is `parent`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def once(clips: str, store: str, chance: random.Random, longest: float, kills: dict[str, int]) -> bool:
    """Starts a run, kills it or a decoder of it at some moment: whether the run came to its end."""
    pid = os.fork()
    if not pid:
        run(clips, store)
    deadline = time.monotonic() + chance.uniform(0.02, longest)
    decoder_too = chance.random() < 0.5
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.005)
    victims = children(pid)
    if decoder_too and victims:
        os.kill(chance.choice(victims), signal.SIGKILL)
        kills["decoder"] += 1
        time.sleep(chance.uniform(0, 0.3))
    os.kill(pid, signal.SIGKILL)
    kills["run"] += 1
    os.waitpid(pid, 0)
    return False


def main(clips: str, stores: str, wanted: int, seed: int) -> None:
    """Kills at least `wanted` runs; a store that is finished early is left and the next one begun."""
    chance, kills, number, longest = random.Random(seed), {"run": 0, "decoder": 0}, 0, 1.0
    while True:
        store = f"{stores}/{number:02d}.zarr"
        ended = once(clips, store, chance, longest, kills) if kills["run"] < wanted else _finish(clips, store)
        number += ended
        if ended and kills["run"] >= wanted:
            break
        longest = longest * 0.8 if ended else longest * 1.1  # on any machine most runs are cut short
    print(json.dumps(kills | {"stores": number}))


def _finish(clips: str, store: str) -> bool:
    pid = os.fork()
    if not pid:
        run(clips, store)
    return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
