"""Seeded mutants of every file that avel reads: an error of ours or success, nothing else, and no hang.

`python -m tests.stores.fuzzing FOLDER SECONDS [SEED]` prints a line for each mutant that ended otherwise and
leaves it in FOLDER. One that ends the process, or hangs in a library, is the one last named in FOLDER/now.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avel.errors import AvelError
from avel.progress import set_verbosity
from avel.stores.seal import MARK, UNSEALED, sealed
from tests.stores.hdf5_checksums import SUPERBLOCK, reseal, sealed_parts
from tests.stores.readers import READERS, Reader, make_files

HANG_SECONDS = 60
MOST_BYTES = 4 << 30
"""More memory than a mutant of a few kilobytes may take, beside what the libraries map."""
TOKENS = (
    b"null", b"NaN", b"-1", b"1e999", b"99999999999999999999", b"[" * 3000, b"{}", b"\0", b"\xff\xfe", b'"',
    b"1" + b"0" * 400, b"\n", b"\x1b[31m", b"../..", b"0", b"", b"&", b",", b"=1+1",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 2**70, 10**400, 0.5, float("nan"), float("inf"), "", "x", "\x1b[2J\n",
    "../../x", [], [None], {}, {"x": 1}, "9" * 5000,
)  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, chance: random.Random) -> bytes:
    """1 to 8 bits anywhere."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, chance: random.Random) -> bytes:
    """A stretch of one value, as sizes and counts have it at their ends."""
    at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 8, 64))
    return data[:at] + bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF))]) * size + data[at + size :]


def cut(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def move(data: bytes, chance: random.Random) -> bytes:
    """A stretch is left out, or stands somewhere else as well."""
    at, to = chance.randrange(len(data)), chance.randrange(len(data))
    stretch = data[at : at + chance.randint(1, 200)]
    return chance.choice((data[:at] + data[at + len(stretch) :], data[:to] + stretch + data[to:]))


def insert(data: bytes, chance: random.Random) -> bytes:
    """Text that means something to a parser."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(TOKENS) + data[at + chance.choice((0, 1, 4)) :]


def restructure(data: bytes, chance: random.Random) -> bytes:
    """One value of a JSON document, at any depth, becomes another, goes, or gets another name."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return insert(data, chance)
    holder, key = document, None
    while isinstance(holder, dict | list) and holder:
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not isinstance(holder[key], dict | list) or chance.random() < 0.3:
            break
        holder = holder[key]
    if key is None or not holder:
        return json.dumps(chance.choice(VALUES)).encode()
    what = chance.random()
    if what < 0.7:
        holder[key] = chance.choice(VALUES)
    elif what < 0.9 or isinstance(holder, list):
        del holder[key]
    else:
        holder[f"{key}x"] = holder.pop(key)
    return json.dumps(document).encode()


MUTATIONS: tuple[Mutation, ...] = (flip, overwrite, cut, move, insert, restructure, restructure)


def mutant(data: bytes, chance: random.Random) -> bytes:
    """One to three mutations; half of the mutants of sealed files are sealed again, so that they are read."""
    changed = data
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        changed = chance.choice(MUTATIONS)(changed, chance) or b"\0"
    last = data[:4] == b"PAR1"
    if data.startswith(SUPERBLOCK) and chance.random() < 0.7:
        changed = reseal(changed, sealed_parts(data))
    at = changed.rfind(MARK) if last else changed.find(MARK)
    if at >= 0 and chance.random() < 0.7:
        changed = changed[:at] + UNSEALED.encode() + changed[at + len(UNSEALED) :]
        changed = sealed(changed, last=last)
    return changed


def fuzz(folder: Path, seconds: float, seed: int) -> int:
    """Reads mutants of all files in turn for so long; returns how many ended in another error than ours."""
    resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + MOST_BYTES,) * 2)
    kept = {reader.file: (folder / reader.file).read_bytes() for reader in READERS}
    counted: Counter[str] = Counter()
    ends, number = time.process_time() + seconds, seed
    while time.process_time() < ends:
        for reader in READERS:
            number += 1
            counted[_one(folder, reader, kept[reader.file], number)] += 1
    print(f"{number - seed} mutants: {dict(counted)}")
    return counted["failed"]


def _one(folder: Path, reader: Reader, whole: bytes, number: int) -> str:
    path = folder / reader.file
    data = mutant(whole, random.Random(number))
    path.write_bytes(data)
    (folder / "now").write_text(f"{reader.file} {number}")
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            reader.read(folder)
        return "read"
    except AvelError:
        return "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        (folder / f"failed-{number}").write_bytes(data)
        print(f"{reader.file} {number}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        if os.environ.get("AVEL_FUZZ_TRACEBACKS"):
            import traceback

            traceback.print_exc(file=sys.stdout)
        return "failed"
    finally:
        faulthandler.cancel_dump_traceback_later()
        path.write_bytes(whole)


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    set_verbosity(0)
    place, duration, *first = sys.argv[1:]
    make_files(Path(place))
    sys.exit(bool(fuzz(Path(place), float(duration), int(*first or ("0",)))))
