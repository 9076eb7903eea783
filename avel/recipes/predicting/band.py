"""Draws the band below a previewed video: a bar of all events, a playhead, the names of those on now."""

import functools

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avel.heads.tasks.task import lanes_of
from avel.recipes.predicting.events import FoundEvent, VideoEvents
from avel.views.plots.style import EMPTY, INK, PAPER, SERIES

FRACTION_OF_WIDTH, LEAST_PIXELS = 0.085, 40
"""Height of the band, as a fraction of the video's width; and its least height."""


class Band:
    """Pixels to be put below each frame; `height` is even, which H.264 requires."""

    def __init__(self, video: VideoEvents, width: int) -> None:
        self._video, self._width = video, width
        self.height = max(LEAST_PIXELS, round(FRACTION_OF_WIDTH * width)) // 2 * 2
        self._text_height = self.height // 2
        lanes = lanes_of((event.start_seconds, event.end_seconds) for event in video.events)
        self._lane_of = dict(zip(video.events, lanes, strict=True))
        self._lanes = max(lanes, default=0) + 1
        names = dict.fromkeys(event.category for event in video.events)
        self._colours = {name: SERIES[place % len(SERIES)] for place, name in enumerate(names)}
        self._captioned = functools.lru_cache(maxsize=64)(self._caption)

    def at(self, seconds: float) -> NDArray[np.uint8]:
        """Returns the band with its playhead at `seconds`: (height, width, 3)."""
        now = (e for e in self._video.events if e.start_seconds <= seconds < e.end_seconds)
        band = self._captioned(tuple(now)).copy()
        place = int(self._x(seconds))
        half = max(1, self._width // 400)
        band[self._text_height :, max(0, place - half) : place + half] = (232, 17, 45)
        return band

    def _x(self, seconds: float) -> float:
        fraction = seconds / max(self._video.valid_seconds, 1e-6)
        return min(max(fraction, 0.0), 1.0) * (self._width - 1)

    def _caption(self, now: tuple[FoundEvent, ...]) -> NDArray[np.uint8]:
        """Draws the bar, and the names of the events that are on."""
        image = Image.new("RGB", (self._width, self.height), PAPER)
        draw = ImageDraw.Draw(image)
        top = self._text_height + 2
        draw.rectangle((0, top, self._width, self.height - 3), fill=EMPTY)
        for event in self._video.events:
            tall = (self.height - 3 - top) / self._lanes
            above = top + self._lane_of[event] * tall
            span = (self._x(event.start_seconds), above, self._x(event.end_seconds), above + tall)
            draw.rectangle(span, fill=self._colours[event.category], outline=PAPER)
        side, x = round(self._text_height * 0.5), 8.0
        # matplotlib's own font is always there and has the letters of most scripts
        font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), round(self._text_height * 0.62))
        for event in now:
            y = (self._text_height - side) // 2
            draw.rectangle((x, y, x + side, y + side), fill=self._colours[event.category])
            text = f"{event.name}  {event.probability:.0%}"
            draw.text((x + side + 8, self._text_height / 2), text, fill=INK, font=font, anchor="lm")
            x += side + 24 + draw.textlength(text, font=font)
        return np.asarray(image).copy()
