"""Writes the groups of clips that share a photo, for `benchmarks/folds.py --groups`.

    python benchmarks/photo_groups.py ../shared/data/semireal/sources.csv photos.csv

`sources.csv` says in its column `shots` what each clip shows. Clips that show the same photo of their class
are one group, and so are groups that share a clip. Photos of other objects in a clip do not count: with them
one group would hold a third of the clips.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path


def photos(shots: str) -> set[str]:
    """Returns the photos of the clip's class in its shots; a class may be two, as in "Bark + Clock".

    >>> sorted(photos("0-4:class:pair:Bark/a.jpg+Clock/b.jpg@Scene/c.jpg;4-9:other:full:Bell/d.jpg"))
    ['Bark/a.jpg', 'Clock/b.jpg']
    """
    found: set[str] = set()
    for shot in shots.split(";"):
        _, kind, _, shown = shot.split(":", 3)
        if kind == "class":
            found |= {*shown.partition("@")[0].split("+")}
    return found


def groups(photos_of: Mapping[str, set[str]]) -> dict[str, int]:
    """Returns clip -> number of its group.

    >>> groups({"x": {"a"}, "y": {"b"}, "z": {"a", "c"}, "w": {"c"}})
    {'x': 0, 'z': 0, 'w': 0, 'y': 1}
    """
    parts: list[tuple[list[str], set[str]]] = []
    for clip, shown in photos_of.items():
        same = [part for part in parts if part[1] & shown]
        clips = [name for part in same for name in part[0]] + [clip]
        parts = [part for part in parts if part not in same]
        parts.append((clips, shown.union(*(part[1] for part in same))))
    parts.sort(key=lambda part: list(photos_of).index(part[0][0]))
    return {clip: number for number, (clips, _) in enumerate(parts) for clip in clips}


def main() -> None:
    """Reads the sources of clips, and writes video_id,group."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    with open(given.sources, newline="") as file:
        shots_of = {row["id"]: row["shots"] for row in csv.DictReader(file) if row["split"] != "test"}
    group_of = groups({clip: photos(shots) for clip, shots in shots_of.items()})
    with open(given.out, "w", newline="") as file:
        csv.writer(file).writerows([("video_id", "group"), *group_of.items()])


if __name__ == "__main__":
    main()
