"""Tests whether A is better than B: bootstraps their difference over videos and seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.heads.evaluation.predictions import Predictions
from avel.heads.tasks.metrics import Tally, ratio
from avel.heads.tasks.results import Decoder
from avel.heads.tasks.task import Task
from avel.text import plural

DRAWS = 2000
Z_95 = 1.96
"""Standard errors from the middle of a 95 % interval to its end."""
WOULD_SHOW = "would show it"
"""Title of a column that has `Difference.needed`."""
WOULD_SHOW_NOTE = f"{WOULD_SHOW}: with so many clips or seeds, the measured difference is no longer level"
"""Line below a table with this column."""


@dataclass(frozen=True)
class Difference:
    """A metric of A minus that of B on the same samples, in points of percent, with its 95 % interval.

    The interval is a bootstrap: it draws videos with replacement, the same for A and B, and seeds of each. It
    draws M - 1 of M seeds: with M draws the variance of their mean would be (M - 1) / M of what it should be.
    With one seed the interval leaves out the variance over seeds.

    Attributes:
        level: whether 0 is within the interval, so that the difference may be chance.
        clips, seeds: number of samples, and of trials of A and of B.
        resolved_points: half the width of the interval: about the smallest difference that can be shown.
        clips_needed: number of samples that would show the measured difference, with these seeds; None if
            no number would.
        seeds_needed: number of trials of each that would show it, with these samples; None if no number
            would, or if A or B has one seed.
    """

    points: float
    low_points: float
    high_points: float
    level: bool
    clips: int
    seeds: tuple[int, int]
    resolved_points: float
    clips_needed: int | None
    seeds_needed: int | None

    def __str__(self) -> str:
        """Returns the text of a table's cell.

        >>> str(Difference(1.62, -0.44, 3.71, True, 402, (5, 5), 2.1, 640, 12))
        '+1.6 [-0.4, 3.7] level'
        """
        interval = f"{self.points:+.1f} [{self.low_points:.1f}, {self.high_points:.1f}]"
        return interval + " level" * self.level

    def explained(self) -> str:
        """Says how many clips or seeds it takes to show the measured difference.

        >>> Difference(1.62, -0.44, 3.71, True, 402, (5, 5), 2.1, 640, None).explained()
        '402 clips and 5 seeds resolve 2.1 points, the difference is 1.6: 640 clips with these seeds would do'
        """
        a, b = self.seeds
        seeds = plural(a, "seed") if a == b else f"{a} and {b} seeds"
        resolve = f"{plural(self.clips, 'clip')} and {seeds} resolve {self.resolved_points:.1f} points"
        text = f"{resolve}, the difference is {abs(self.points):.1f}"
        if not self.level:
            return text
        ways = [f"{self.clips_needed} clips with these seeds"] * (self.clips_needed is not None)
        ways += [f"{self.seeds_needed} seeds on these clips"] * (self.seeds_needed is not None)
        return f"{text}: " + (
            f"{' or '.join(ways)} would do" if ways else "it takes more clips and more seeds"
        )

    @property
    def needed(self) -> str:
        """Returns how many clips or seeds would show a difference that is level, for a table's cell.

        >>> Difference(1.62, -0.44, 3.71, True, 402, (5, 5), 2.1, 640, 12).needed
        '640 clips or 12 seeds'
        """
        ways = [f"{self.clips_needed} clips"] * (self.clips_needed is not None)
        ways += [f"{self.seeds_needed} seeds"] * (self.seeds_needed is not None)
        return (" or ".join(ways) or "more of both") * self.level


def difference_cells(difference: Difference | None) -> tuple[str, str]:
    """Returns two cells of a table: a difference, and what it takes to show one of its size."""
    return ("", "") if difference is None else (str(difference), difference.needed)


def difference(a: Tally, b: Tally, video_id: NDArray[np.object_], *, seed: int = 0) -> Difference:
    """Returns A's metric minus B's with its interval: tallies (M_a, R) and (M_b, R), videos (R,).

    It draws videos, not samples: samples of one video are not independent.
    """
    _, video = np.unique(video_id.astype(str), return_inverse=True)
    random = np.random.default_rng(seed)
    count = int(video.max()) + 1
    drawn = random.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    values = [_of_draws(tally, video, drawn) for tally in (a, b)]
    both = _seeds_drawn(values[0], random) - _seeds_drawn(values[1], random)
    low, high = np.quantile(both, [0.025, 0.975])
    points = float(a.value.mean() - b.value.mean())
    seeds = len(a.part), len(b.part)
    over_videos = float(np.var(values[0].mean(1) - values[1].mean(1)))
    variances = [float(np.var(tally.value, ddof=1)) if len(tally.part) > 1 else 0.0 for tally in (a, b)]
    over_seeds = sum(variance / trials for variance, trials in zip(variances, seeds, strict=True))
    # Seeds differ in which clips they get right: both more clips and more seeds reduce this part
    interactions = [_interaction(of_trials) for of_trials in values]
    over_both = sum(variance / trials for variance, trials in zip(interactions, seeds, strict=True))
    allowed = (points / Z_95) ** 2  # the variance at which one end of the interval is at 0
    return Difference(
        points=100 * points,
        low_points=100 * float(low),
        high_points=100 * float(high),
        level=bool(low <= 0 <= high),
        clips=len(video),
        seeds=seeds,
        resolved_points=100 * float(high - low) / 2,
        clips_needed=_divisor(len(video) * (over_videos + over_both), allowed - over_seeds),
        seeds_needed=_divisor(sum(variances) + sum(interactions), allowed - over_videos)
        if min(seeds) > 1
        else None,
    )


def aligned(
    a: Sequence[Predictions], b: Sequence[Predictions]
) -> tuple[list[Predictions], list[Predictions]]:
    """Returns both on the samples that both have labels for, in the order of A's: trials of A, trials of B.

    Raises:
        StoreError: no sample in common, or their labels differ.
    """
    left, right = [item.labelled() for item in a], [item.labelled() for item in b]
    place = {number: at for at, number in enumerate(right[0].number.tolist())}
    common = [(at, place[number]) for at, number in enumerate(left[0].number.tolist()) if number in place]
    if not common:
        raise StoreError(
            f"the runs have no sample of split {left[0].split!r} in common",
            hint="compare runs on features of one dataset",
        )
    of_a, of_b = (np.array(places) for places in zip(*common, strict=True))
    left, right = [item.take(of_a) for item in left], [item.take(of_b) for item in right]
    same = left[0].label.shape == right[0].label.shape and (left[0].video_id == right[0].video_id).all()
    if not same or (left[0].label != right[0].label).any():
        raise StoreError(
            f"the samples of split {left[0].split!r} differ in labels or videos",
            hint="compare runs on features of one dataset and one grid",
        )
    return left, right


def tally(items: Sequence[Predictions], task: Task, decoder: Decoder | None = None) -> dict[str, Tally]:
    """Returns metric -> its tally over M trials and R samples, (M, R)."""
    tallies = [task.tallies(task.decode(item.probabilities, decoder), item.label) for item in items]
    return {
        name: Tally(
            np.stack([each[name].part for each in tallies]), np.stack([each[name].whole for each in tallies])
        )
        for name in tallies[0]
    }


def differences(a: Sequence[Predictions], b: Sequence[Predictions], task: Task) -> dict[str, Difference]:
    """Returns metric -> A's minus B's, on the samples that both have labels for.

    Raises:
        StoreError: no sample in common, or their labels differ.
    """
    left, right = aligned(a, b)
    of_a, of_b = tally(left, task), tally(right, task)
    return {name: difference(of_a[name], of_b[name], left[0].video_id) for name in of_a}


def resolved_points(compared: Iterable[Mapping[str, Difference]]) -> float | None:
    """Returns the median of the points that differences in the main metric resolve; None without any."""
    resolved = [next(iter(each.values())).resolved_points for each in compared if each]
    return statistics.median(resolved) if resolved else None


def _of_draws(each: Tally, video: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Computes the metric of each trial in each draw of videos: (M, R), (R,), (D, V) -> (D, M)."""
    part, whole = (
        drawn.astype(np.float64)
        @ np.stack([np.bincount(video, row, minlength=drawn.shape[1]) for row in rows], 1)
        for rows in (each.part, each.whole)
    )
    return ratio(part, whole)


def _seeds_drawn(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Averages over M - 1 trials that it draws, or takes the only one: (D, M) -> (D,)."""
    draws, trials = values.shape
    if trials == 1:
        return values[:, 0]
    chosen = random.multinomial(trials - 1, np.full(trials, 1 / trials), size=draws)
    return np.asarray((values * chosen).sum(1) / (trials - 1), np.float64)


def _interaction(values: NDArray[np.float64]) -> float:
    """Estimates the variance of a trial's difference from the mean trial, over draws: (D, M) -> scalar."""
    trials = values.shape[1]
    if trials == 1:
        return 0.0
    averaged_out = np.var(values, 0).mean() - np.var(values.mean(1))
    return float(averaged_out * trials / (trials - 1))


def _divisor(variance: float, allowed: float) -> int | None:
    """Returns the whole number that divides a variance down to `allowed`; None if there is none."""
    return max(1, math.ceil(variance / allowed - 1e-9)) if allowed > 0 else None
