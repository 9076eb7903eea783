"""Finds the pictures that the grid needs from their presentation times alone, before decoding."""

from collections.abc import Sequence
from fractions import Fraction

SKIPPING = frozenset({"h264", "hevc"})
"""Codecs of which FFmpeg can skip unreferenced pictures; tests show that the others stay bit-exact."""


class Clock:
    """Converts one stream's time stamps to slots of the grid: slot k is shown at origin + k / fps."""

    def __init__(self, time_base: Fraction, origin: Fraction, fps: int) -> None:
        step, start = time_base * fps, origin * fps
        # slots = (pts * scale - shift) / unit, in integers: exact, and ten times faster than Fraction
        self._scale = step.numerator * start.denominator
        self._shift = start.numerator * step.denominator
        self._unit = step.denominator * start.denominator

    def slot(self, pts: int) -> int:
        """Returns the first slot at which a picture presented at `pts` is on screen, at least 0."""
        return max(0, -((self._shift - pts * self._scale) // self._unit))


def needed_times(times: Sequence[int], clock: Clock, slots: int) -> set[int]:
    """Returns the time stamps of the pictures that are on screen at one or more of `slots` slots.

    A picture is on screen from its slot until the next picture's; the first also before its own time.
    """
    order = sorted(set(times))
    starts = [0, *(clock.slot(pts) for pts in order[1:]), slots]
    pairs = zip(order, starts[:-1], starts[1:], strict=True)
    return {pts for pts, start, after in pairs if start < min(after, slots)}
