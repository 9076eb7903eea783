"""Seeded mutants of small media files of every container: read, or refused with a reason, and no hang.

`python -m tests.pipeline.media.fuzzing FOLDER MUTANTS [SEED]` ends with JSON: how many mutants ended how, and
which ended otherwise. A mutant that ends the process, or hangs, is the one left in FOLDER/mutant.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np

from avel.grid import Grid
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.stores.manifest import Reason
from tests.media import Film, compose, steady
from tests.stores.fuzzing import cut, flip, move, overwrite

HANG_SECONDS = 60
GRID = Grid(segments=3, fps=4, size=32)
FILM = Film(steady(10, 2), 32, 32, clicks=(0.5,), sound_seconds=2.0, tick=Fraction(1, 10))
MPEG = replace(FILM, times=steady(25, 2), codec="mpeg2video", sound_codec="mp2", tick=Fraction(1, 25))
PLAIN = replace(FILM, codec="mjpeg", pixel_format="yuvj420p", sound_codec="pcm_s16le")
VP9 = replace(
    FILM,
    width=64,
    height=64,
    times=steady(25, 2),
    tick=Fraction(1, 25),
    codec="libvpx-vp9",
    sound_codec="libopus",
    sample_rate=48000,
)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
FILMS: dict[str, Film] = {
    "mp4": FILM,
    "fragments.mp4": replace(FILM, form=FRAGMENTS, options={"bf": "0", "g": "5"}),
    "mov": PLAIN,
    "mkv": FILM,
    "webm": VP9,
    "ts": FILM,
    "mpg": MPEG,
    "avi": FILM,
    "flv": FILM,
    "h264": replace(FILM, clicks=None),
}

Mutation = Callable[[bytes, random.Random], bytes]


def zeros(data: bytes, chance: random.Random) -> bytes:
    """A stretch was never written."""
    at, size = chance.randrange(len(data)), chance.randint(1, len(data) // 2)
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def joined(data: bytes, chance: random.Random) -> bytes:
    """The same again follows, from the beginning or from somewhere."""
    return data + data[chance.choice((0, chance.randrange(len(data)))) :]


MUTATIONS: tuple[Mutation, ...] = (flip, overwrite, cut, move, zeros, joined)


def outcome(path: Path) -> str:
    """Reads a file as staging does: "read", the reason of its refusal, or what it must not end with."""
    try:
        with open_media(path, GRID, for_jpeg=True) as media:
            samples = sum(len(chunk) for chunk in media.samples())
            frames = sum(len(chunk) for chunk in media.frames())
    except ClipRefused as refused:
        return (
            refused.reason if refused.reason in get_args(Reason) and refused.detail else f"refused: {refused}"
        )
    except MemoryError:
        return "memory"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    right = (samples, frames) == (GRID.samples, GRID.frames) and 0 <= media.info.valid_seconds <= GRID.seconds
    return "read" if right else f"{samples} samples, {frames} frames, {media.info.valid_seconds} s"


def fuzz(folder: Path, mutants: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Returns how many mutants ended how, and those that ended otherwise, each with its number."""
    sources = [compose(folder / f"source.{suffix}", film).read_bytes() for suffix, film in FILMS.items()]
    ends: Counter[str] = Counter()
    wrong = []
    for number in range(mutants):
        chance = random.Random(seed * 1_000_003 + number)
        data = sources[number % len(sources)]
        for _ in range(chance.choice((1, 1, 2, 3))):
            data = chance.choice(MUTATIONS)(data, chance) or b"\0"
        path = folder / "mutant"
        path.write_bytes(data)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        end = outcome(path)
        ends[end] += 1
        if end != "read" and end not in get_args(Reason):
            wrong.append(f"{number}: {end}")
    faulthandler.cancel_dump_traceback_later()
    return ends, wrong


if __name__ == "__main__":
    faulthandler.enable()
    np.seterr(all="ignore")
    found, otherwise = fuzz(Path(sys.argv[1]), int(sys.argv[2]), int((*sys.argv, "0")[3]))
    print(json.dumps({"ends": found, "wrong": otherwise}))
