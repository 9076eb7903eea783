"""Summarizes in numbers what a run of `avel extract` did."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from avel.pipeline.staging.forecast import Forecast
from avel.pipeline.staging.stage import STEPS
from avel.stores.manifest import Entry, Manifest
from avel.text import duration, plural, size, table

SHOWN_FAILURES = 10
"""Most failed clips that are shown to people."""


@dataclass(frozen=True)
class ExtractSummary:
    """Results of a run. Except in a dry run, `staged` + `skipped` + `failed` are all videos of the dataset.

    Attributes:
        staged: clips staged in this run.
        skipped: clips that were staged before and are unchanged.
        failed: clips that failed in this run, or earlier and were not tried again.
        reasons: how many clips failed for each reason, the most frequent first.
        failures: (video id, reason, detail) of every failed clip.
        restaged: how many of this run's clips were staged again, by cause ("source-changed", ...).
        seconds: wall time of the run.
        clips_per_second: clips of this run, failed ones included, divided by `seconds`.
        split_seconds: seconds of each of STEPS, summed over all workers.
        peak_mib: most memory that one decoding process has used.
        damaged: damaged clips that `repair` found and that could not be staged again.
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
    damaged: tuple[str, ...] = ()
    forecast: Forecast | None = None

    def headline(self) -> str:
        """Returns the result in one line."""
        if self.forecast is not None:
            expected = self.forecast
            if not expected.clips:
                return f"{self.store}: no clip would be staged"
            causes = ", ".join(f"{count:,} {cause}" for cause, count in expected.causes.items())
            return (
                f"{self.store}: {plural(expected.clips, 'clip')} would be staged ({causes}), "
                f"{size(expected.bytes)} in about {duration(expected.seconds)}, "
                f"estimated from {plural(expected.measured_on, 'clip')}"
            )
        whole = f"{self.staged + self.skipped:,} of {plural(self.videos, 'clip')} staged"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items())
        lost = f", {self.failed:,} failed ({reasons})" if self.failed else ", none failed"
        lost += f", {len(self.damaged):,} damaged" if self.damaged else ""
        return f"{self.store}: {whole}{lost}; {self.staged:,} staged now, in {duration(self.seconds)}"

    def lines(self) -> list[str]:
        """Returns the clips that failed as a table, the first of many."""
        if not self.failures:
            return []
        shown = table(("failed clip", "reason", "what happened"), self.failures[:SHOWN_FAILURES])
        more = len(self.failures) - SHOWN_FAILURES
        return [*shown, *([f"and {more:,} more; --json lists all"] if more > 0 else []), ""]


@dataclass
class DoneClips:
    """Counts of clips as they are done, so that a run need not keep their entries.

    Attributes:
        failures: (video id, reason, detail) of each that failed.
        restaged: causes of those that were staged again, counted.
    """

    clips: int = 0
    staged: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    restaged: Counter[str] = field(default_factory=Counter)
    split_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    peak_mib: int = 0

    def add(self, entries: Sequence[Entry]) -> None:
        """Counts clips that are done."""
        self.clips += len(entries)
        self.staged += sum(entry.state == "staged" for entry in entries)
        self.failures += [
            (entry.video_id, entry.reason, entry.detail) for entry in entries if entry.state == "failed"
        ]
        self.restaged.update(entry.cause for entry in entries if entry.cause != "new")
        for step in STEPS:
            self.split_seconds[step] += sum(getattr(entry, f"{step}_seconds") for entry in entries)
        self.peak_mib = max([self.peak_mib, *(entry.peak_mib for entry in entries)])


def summarize(
    store: str,
    videos: int,
    unchanged: Manifest,
    done: DoneClips,
    seconds: float,
    expected: Forecast | None = None,
) -> ExtractSummary:
    """Summarizes a run over `videos` that left `unchanged` as they are and did `done` in `seconds`."""
    before = unchanged.where(state="failed")
    failures = (*zip(before.ids, before.texts("reason"), before.texts("detail"), strict=True), *done.failures)
    return ExtractSummary(
        store=store,
        videos=videos,
        staged=done.staged,
        skipped=int(unchanged.holds(state="staged").sum()),
        failed=len(failures),
        reasons=dict(Counter(reason for _, reason, _ in failures).most_common()),
        failures=failures,
        restaged=dict(done.restaged.most_common()),
        seconds=round(seconds, 3),
        clips_per_second=round(done.clips / seconds, 3),
        split_seconds={step: round(spent, 3) for step, spent in done.split_seconds.items()},
        peak_mib=done.peak_mib,
        forecast=expected,
    )
