"""Kills commands at random moments, and compares the files in the end.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 20 --seed 1 --commands pretrain cache-features

A call runs in a process of its own, which gets SIGKILL after a random part of the time that the call takes
undisturbed. The call is given again until it ends. Then its files are compared with those of an undisturbed
call, byte by byte. Left out are records of times, dates and process numbers (NOT_COMPARED), the seconds of
training in the record of each trial, and in a store's manifest the time and memory that each clip took.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import avel
from avel.recipes.composing.compose import compose
from avel.stores.location import locate
from avel.stores.manifest import read_manifest
from avel.text import table

COMMANDS = ("extract", "pretrain", "cache-features", "train-head", "sweep")
NOT_COMPARED = {"run.json", "files.json", "metrics.jsonl", "results.json", ".lock"}
TINY = {
    "visual_backbone": "tiny",
    "audio_backbone": "tiny",
    "visual_weights": "random",
    "audio_weights": "random",
}
TAKEN = ("_seconds", "_mib")
"""Endings of manifest columns that are not compared; `valid_seconds`, a fact of the clip, is."""
UNEQUAL = {"train_seconds", "checksum"}
"""Keys of JSON files that are not compared; `checksum` is that of the file, `train_seconds` included."""
Call = Callable[[Path], object]


def main() -> None:
    """Measures and prints a table."""
    options = _options()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset, store, cache = folder / "AVE_Dataset", folder / "s.zarr", folder / "features.h5"

        def composed(path: Path) -> object:
            return compose(path, clips=options.clips)

        def extracted(path: Path) -> object:
            return avel.extract(dataset, path, size=64)

        def pretrained(path: Path) -> object:
            return avel.pretrain(store, path, epochs=6, batch_size=4, projector="32-32-32", **TINY)

        def cached(path: Path) -> object:
            return avel.cache_features(store, path, keep_maps=True, batch_size=2, **TINY)

        def trained(path: Path) -> object:
            return avel.train_head(cache, path, head="tacma", seeds=2, epochs=8, together="never")

        def swept(path: Path) -> object:
            return avel.sweep(
                cache, path, {"lr": [0.001, 0.0003]}, head="mlp", seeds=2, epochs=8, together="never"
            )

        # In a fork each: forks cannot use torch's threads once these have run in this process
        for call, target in ((composed, dataset), (extracted, store), (cached, cache)):
            _undisturbed(call, target)
        calls = dict(zip(COMMANDS, (extracted, pretrained, cached, trained, swept), strict=True))
        for what in options.commands:
            rows.append(
                (what, *_killed(calls[what], folder / what, options.kills, random.Random(options.seed)))
            )
            print(*rows[-1], flush=True)
    print("\n".join(table(("command", "s", "kills", "calls that ended", "files", "that differ"), rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=18)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _killed(call: Call, folder: Path, kills: int, draws: random.Random) -> tuple[object, ...]:
    """Returns seconds of a call, kills, calls that ended, files compared, and those that differ."""
    folder.mkdir()
    target, struck, ended, compared = folder / "made", 0, 0, 0
    differ: set[str] = set()
    seconds = _undisturbed(call, target)
    whole = _contents(target)
    _remove(target)
    while struck < kills or target.exists():
        last = struck == kills
        code = _process(call, target, None if last else draws.uniform(0, seconds))
        if code not in (0, -9):
            raise SystemExit(f"{call.__name__}: exit code {code} after {struck} kills")
        struck += code == -9
        if code == 0:
            found = _contents(target)
            ended, compared = ended + 1, compared + len(whole)
            differ |= {name for name in {*whole, *found} if whole.get(name) != found.get(name)}
            _remove(target)
    return f"{seconds:.1f}", struck, ended, compared, ", ".join(sorted(differ)) or "none"


def _undisturbed(call: Call, target: Path) -> float:
    """Runs a call to its end, and returns the seconds that it took."""
    began = time.monotonic()
    if code := _process(call, target, None):
        raise SystemExit(f"{call.__name__}: exit code {code} without a kill")
    return time.monotonic() - began


def _process(call: Call, target: Path, kill_after: float | None) -> int:
    """Runs a call in a fork, and returns its exit code; -9 where it was killed."""
    process = multiprocessing.get_context("fork").Process(target=call, args=(target,))
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()
    return int(process.exitcode or 0)


def _contents(target: Path) -> dict[str, bytes]:
    files = [target] if target.is_file() else sorted(each for each in target.rglob("*") if each.is_file())
    contents = {
        path.relative_to(target.parent).as_posix(): _without_seconds(path)
        for path in files
        if path.name not in NOT_COMPARED and path.parent.name != "manifest"
    }
    if (target / "manifest").is_dir():
        entries = read_manifest(locate(target)).table
        same = [name for name in entries.column_names if not name.endswith(TAKEN) or name == "valid_seconds"]
        contents["manifest"] = repr(entries.select(same).to_pylist()).encode()
    return contents


def _without_seconds(path: Path) -> bytes:
    if path.suffix != ".json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    return json.dumps({key: value for key, value in record.items() if key not in UNEQUAL}).encode()


def _remove(target: Path) -> None:
    """Removes a call's files, those that it has begun too."""
    shutil.rmtree(target.parent)
    target.parent.mkdir()


if __name__ == "__main__":
    main()
