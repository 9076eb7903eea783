"""Which pictures of a stream the grid needs, told from presentation times alone, before decoding."""

from collections.abc import Sequence
from fractions import Fraction

SKIPPING = frozenset({"h264", "hevc"})
"""Codecs whose unreferenced pictures FFmpeg leaves out, proven bit-exact by the tests."""


class Clock:
    """Turns one stream's time stamps into slots of the grid: slot k is shown at origin + k / fps."""

    def __init__(self, time_base: Fraction, origin: Fraction, fps: int) -> None:
        step, start = time_base * fps, origin * fps
        # slots = (pts * scale - shift) / unit in whole numbers: exact, and ten times faster than Fraction
        self._scale = step.numerator * start.denominator
        self._shift = start.numerator * step.denominator
        self._unit = step.denominator * start.denominator

    def slot(self, pts: int) -> int:
        """The first slot at which a picture presented at `pts` is on screen, not below 0."""
        return max(0, -((self._shift - pts * self._scale) // self._unit))


def needed_times(times: Sequence[int], clock: Clock, slots: int) -> set[int]:
    """The time stamps of the pictures that are on screen at one of `slots` slots at least.

    A picture is on screen from its slot to the next picture's; the first one is held before its own time.
    """
    order = sorted(set(times))
    starts = [0, *(clock.slot(pts) for pts in order[1:]), slots]
    pairs = zip(order, starts[:-1], starts[1:], strict=True)
    return {pts for pts, start, after in pairs if start < min(after, slots)}
