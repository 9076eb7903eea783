"""Says the facts of an inspection in words; `avel inspect --json` has them all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from avel.text import classes_and_background, plural, size, table

Facts = Mapping[str, Any]
MADE_FROM = ("cache", "store", "dataset", "cache_digest", "store_digest")
"""Inputs of a run that are shown."""
SHOWN = 10
"""Most rows of a table, or names in a problem, that are shown."""


def _dataset_lines(facts: Facts) -> list[str]:
    splits, tags, events_held = (facts[f"samples_of_{name}"] for name in ("split", "tag", "events"))
    baselines = facts["trivial_baselines"] or facts["parsing_baselines"]
    rules = list(next(iter(baselines.values()), ()))
    rows = [
        (split or "no split", count, *(f"{found[rule]:.1f}" if found else "" for rule in rules))
        for split, count in splits.items()
        for found in [baselines.get(split or "all")]
    ]
    shown = table(("split", "samples", *(f"{rule.replace('_', ' ')}, %" for rule in rules)), rows)
    shown += _section(("class", "events"), facts["events_of_class"])
    if set(events_held) - {1}:
        shown += _section(("events in a sample", "samples"), events_held)
    if set(facts["events_of_modality"]) - {"both"}:
        shown += _section(("modality", "events"), facts["events_of_modality"])
    return [*shown, *_section(("tag", "samples"), tags), "", *(f"note: {each}" for each in facts["remarks"])]


def _store_lines(facts: Facts) -> list[str]:
    if "grid" not in facts:
        return []
    grid = facts["grid"]
    rows = [
        ("grid", f"{plural(grid['segments'], 'segment')} of {grid['segment_seconds']:g} s"),
        ("frames", f"{grid['fps']} a second, {grid['size']} x {grid['size']} pixels"),
        ("kept as", facts["settings"].get("frame_codec", "")),
        ("audio", f"{grid['sample_rate']} samples a second"),
        ("padded clips", str(facts["padded"])),
    ]
    if facts["format"]:
        rows.append(("dataset read as", " ".join((facts["format"], *facts["format_settings"]))))
    failures = _section(("failed clip", "why"), facts["failures"])
    remarks = _section(("staged clip", "remark"), facts["remarks"])
    return [*table(("staged as", ""), rows), *failures, *remarks, ""]


def _cache_lines(facts: Facts) -> list[str]:
    if "arrays" not in facts:
        return []
    arrays = [(name, " x ".join(map(str, shape))) for name, shape in facts["arrays"].items()]
    missing = [
        (item["sample"] if item["sample"] >= 0 else "none", item["video_id"], item["reason"])
        for item in facts["missing"]
    ]
    shown = [
        *table(("array", "clips x segments x features"), arrays),
        "",
        *table(("split", "samples"), list(facts["splits"].items())),
        *_section(("missing sample", "clip", "why"), missing),
    ]
    counts = {
        "with a video that is also in train": facts["leaked_samples"],
        "whose events are not known": facts["unknown_samples"],
    }
    notes = [f"note: {plural(count, 'sample')} {what}" for what, count in counts.items() if count]
    if facts["finished_parts"]:
        left = f"{plural(facts['finished_parts'], 'part')}, {size(facts['parts_bytes'])}"
        notes.append(
            f"note: unfinished calls left {left}, in {facts['parts_folder']}; the same calls go on from "
            "there, or start again if you remove that folder"
        )
    return [*shown, "", *notes]


def _run_lines(facts: Facts) -> list[str]:
    made_from = [
        (key.replace("_", " "), str(value)) for key, value in facts["inputs"].items() if key in MADE_FROM
    ]
    weights = [(name, size(count)) for name, count in facts["weights"].items()]
    shown = table(("made from", ""), made_from) if made_from else []
    return [*shown, *_section(("weights", "size"), weights), ""]


def _dataset_headline(facts: Facts) -> str:
    contents = f"{plural(facts['samples'], 'sample')} of {plural(facts['videos'], 'video')}"
    return f"{contents}, {classes_and_background(facts['classes'])}"


def _store_headline(facts: Facts) -> str:
    if "grid" not in facts:
        return f"{plural(facts['videos'], 'clip')}, {size(facts['bytes'])}"
    staged = f"{facts['staged']:,} of {plural(facts['videos'], 'clip')} staged"
    return f"{staged}, {classes_and_background(facts['classes'])}, {size(facts['bytes'])}"


def _cache_headline(facts: Facts) -> str:
    if "arrays" not in facts:
        return f"{plural(facts['finished_parts'], 'part')}, {size(facts['bytes'])}"
    contents = f"{plural(facts['samples'], 'sample')} of {plural(facts['videos'], 'clip')}"
    missing = f", {facts['missing_samples']:,} missing" if facts["missing_samples"] else ""
    return f"{contents}{missing}, {classes_and_background(facts['classes'])}, {size(facts['bytes'])}"


def _run_headline(facts: Facts) -> str:
    state = "finished" if facts["finished"] else "not finished"
    head = f" of head {facts['config']['head']}" if "head" in facts["config"] else ""
    return f"avel {facts['stage']}{head}, {state}, {size(facts['bytes'])}"


class Wording(NamedTuple):
    """Name of a kind, and functions that say its facts in one line, and in tables."""

    name: str
    headline: Callable[[Facts], str]
    lines: Callable[[Facts], list[str]]


WORDINGS: Mapping[str, Wording] = {
    "dataset": Wording("a dataset", _dataset_headline, _dataset_lines),
    "store": Wording("a clip store", _store_headline, _store_lines),
    "cache": Wording("a feature cache", _cache_headline, _cache_lines),
    "run": Wording("a run", _run_headline, _run_lines),
}


def _section(header: tuple[str, ...], rows: Sequence[tuple[Any, ...]] | Mapping[str, Any]) -> list[str]:
    """Returns an empty line, and a table of the first rows that says how many there are; [] without rows."""
    rows = list(rows.items()) if isinstance(rows, Mapping) else rows
    cut = [(f"... {len(rows):,} in all", *[""] * (len(header) - 1))] if len(rows) > SHOWN else []
    return ["", *table(header, [*rows[:SHOWN], *cut])] if rows else []
