"""What a run of `avel extract` did, in numbers."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from avel.pipeline.staging.forecast import Forecast
from avel.pipeline.staging.plan import Plan
from avel.stores.manifest import Entry

STEPS = ("decode", "scale", "jpeg", "audio", "write")


@dataclass(frozen=True)
class ExtractSummary:
    """What a run did. `staged` + `skipped` + `failed` are all videos of the dataset, but for a dry run.

    Attributes:
        staged: clips staged in this run.
        skipped: clips that were staged before and are unchanged.
        failed: clips that are failed now, in this run or an earlier one.
        reasons: how many failed for each reason.
        failures: (video id, reason, detail) of every failed clip.
        restaged: how many of this run's clips were there before, by cause ("source-changed", ...).
        seconds: wall time.
        clips_per_second: clips of this run, failed ones included, over the wall time.
        split_seconds: time by step, summed over all workers: decode, scale, jpeg, audio, write.
        peak_mib: most memory that one decoding process has held.
        forecast: what a dry run expects.
    """

    store: str
    videos: int
    staged: int
    skipped: int
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)
    failures: tuple[tuple[str, str, str], ...] = ()
    restaged: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    clips_per_second: float = 0.0
    split_seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: int = 0
    forecast: Forecast | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain values for `--json`."""
        return asdict(self)


def summarize(
    store: str, plan: Plan, done: Iterable[Entry], seconds: float, expected: Forecast | None = None
) -> ExtractSummary:
    """The summary of a run that had `plan` and did `done` in `seconds`."""
    done = tuple(done)
    everything = (*plan.kept, *done)
    failures = tuple(
        (entry.video_id, entry.reason, entry.detail) for entry in everything if entry.state == "failed"
    )
    return ExtractSummary(
        store=store,
        videos=len(plan.kept) + len(plan.todo),
        staged=sum(entry.state == "staged" for entry in done),
        skipped=sum(entry.state == "staged" for entry in plan.kept),
        failed=len(failures),
        reasons=tally(reason for _, reason, _ in failures),
        failures=failures,
        restaged=tally(entry.cause for entry in done if entry.cause != "new"),
        seconds=round(seconds, 3),
        clips_per_second=round(len(done) / seconds, 3),
        split_seconds={step: round(sum(step_seconds(entry, step) for entry in done), 3) for step in STEPS},
        peak_mib=max((entry.peak_mib for entry in done), default=0),
        forecast=expected,
    )


def step_seconds(entry: Entry, step: str) -> float:
    """Time that one clip spent in one step."""
    seconds: float = getattr(entry, f"{step}_seconds")
    return seconds


def tally(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
