"""Mutants of real mp4 files: the run ends, with each of them accounted for."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from avel.stores.clip_check import verify_clips
from avel.stores.clips import ClipStore
from avel.stores.manifest import Reason
from tests.pipeline.staging.small_clips import make_clip

MUTANTS = 320
LARGEST_BYTES = 700_000
SMALL_OPTIONS = ["--segments", "2", "--fps", "4", "--size", "32"]

Mutation = Callable[[bytearray, random.Random], bytearray]


def flip_bits(data: bytearray, chance: random.Random) -> bytearray:
    """1 to 200 bits anywhere."""
    for _ in range(chance.randint(1, 200)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def flip_header(data: bytearray, chance: random.Random) -> bytearray:
    """1 to 20 bytes of the index (moov), where sizes and counts are."""
    start = max(data.find(b"moov"), 0)
    for _ in range(chance.randint(1, 20)):
        data[chance.randrange(start, len(data))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
    return data


def truncate(data: bytearray, chance: random.Random) -> bytearray:
    """The file's end is missing."""
    return data[: chance.randrange(len(data))]


def zero(data: bytearray, chance: random.Random) -> bytearray:
    """A stretch of zeros, as a download with holes has."""
    start, size = chance.randrange(len(data)), chance.randint(1, len(data) // 2)
    data[start : start + size] = bytes(len(data[start : start + size]))
    return data


def swap(data: bytearray, chance: random.Random) -> bytearray:
    """Two blocks change places."""
    size = chance.randint(16, len(data) // 4)
    one, two = sorted(chance.sample(range(0, len(data) - size, size), 2))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    return data


def claim(data: bytearray, chance: random.Random) -> bytearray:
    """A box that claims to be huge, empty or of another size."""
    box = chance.choice(b"moov trak stsz stco stts ctts mdat stsd avcC elst".split())
    at = data.find(box)
    if at >= 4:
        value = chance.choice([0, 1, 7, 2**31 - 1, 2**32 - 1, chance.randrange(2**32)])
        data[at - 4 : at] = value.to_bytes(4, "big")
    return data


def repeat(data: bytearray, chance: random.Random) -> bytearray:
    """A stretch comes twice."""
    start = chance.randrange(len(data))
    return data[:start] + data[max(0, start - chance.randint(1, 5000)) :]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, flip_header, truncate, zero, swap, claim, repeat)


def make_mutants(sources: list[Path], folder: Path, count: int, seed: int) -> None:
    """`count` mutants in `folder`, the same for the same seed, beside one file that is whole."""
    chance = random.Random(seed)
    folder.mkdir()
    (folder / "whole.mp4").write_bytes(sources[0].read_bytes())
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        data = bytearray(chance.choice(sources).read_bytes())
        (folder / f"{number:03d}-{mutation.__name__}.mp4").write_bytes(mutation(data, chance))


def check(folder: Path, store: Path, options: list[str]) -> dict[str, int]:
    """Stages the folder by the command line; the reasons of the failed clips."""
    command = [sys.executable, "-m", "avel", "extract", str(folder), str(store), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    opened = ClipStore.open(store)
    count = len(list(folder.iterdir()))
    assert summary["staged"] + summary["failed"] == summary["videos"] == count == len(opened.entries)
    assert {entry.state for entry in opened.entries.values()} == {"staged", "failed"}
    assert set(summary["reasons"]) <= set(get_args(Reason))
    assert opened.entries["whole"].state == "staged"
    assert verify_clips(opened) == ()
    reasons: dict[str, int] = summary["reasons"]
    return reasons


@pytest.mark.slow
def test_mutants_of_composed_clips(tmp_path: Path) -> None:
    sources = [make_clip(tmp_path / f"{seed}.mp4", seed=seed) for seed in range(4)]
    make_mutants(sources, tmp_path / "mutants", MUTANTS, seed=1)
    reasons = check(tmp_path / "mutants", tmp_path / "store.zarr", SMALL_OPTIONS)
    assert reasons.get("unreadable", 0) > 20  # the mutations do break files
    assert sum(reasons.values()) < 0.8 * MUTANTS  # and not all of them


@pytest.mark.slow
@pytest.mark.shared
def test_mutants_of_web_videos(data: Path, tmp_path: Path) -> None:
    files = [*sorted((data / "clips").iterdir()), *sorted((data / "odd").iterdir())]
    sources = [
        file for file in files if file.suffix.lower() == ".mp4" and file.stat().st_size < LARGEST_BYTES
    ]
    assert len(sources) >= 15
    make_mutants(sources, tmp_path / "mutants", MUTANTS, seed=2)
    reasons = check(tmp_path / "mutants", tmp_path / "store.zarr", [*SMALL_OPTIONS, "--time-limit", "20"])
    assert 20 < sum(reasons.values()) < 0.8 * MUTANTS
