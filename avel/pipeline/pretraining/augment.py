"""Random augmentation of frames, batched on tensors: Table 5's six, with Barlow Twins' settings.

Crop, resize, flip and blur are linear along each axis, so for each clip they are one matrix for each axis:
the result is `vertical @ frame @ horizontal^T`, two matrix products for the whole batch on whatever device
holds it. Colours change as torchvision's functions change them, in an order that is drawn for each clip;
clips with the same change at the same place of their order are changed together, each by its own factor.
A draw depends on seed, epoch, clip and frame alone; switching one augmentation off leaves the others' draws.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avel.device import pinned
from avel.pipeline.config import AugmentConfig

CENTRE_FRACTION = 0.875
"""Side of the centre crop as a fraction of the frame's: 224 of 256."""
ASPECT = (3 / 4, 4 / 3)
FLIP_PROBABILITY, JITTER_PROBABILITY, GRAYSCALE_PROBABILITY = 0.5, 0.8, 0.2
BLUR_PROBABILITY, SOLARIZE_PROBABILITY = 0.5, 0.1
"""Barlow Twins blurs one view always and the other at 0.1, and solarises at 0 and 0.2; AV-BT has one view."""
SIGMA_PIXELS = (0.1, 2.0)
STRENGTHS = (0.4, 0.4, 0.2, 0.1)
"""Strengths of brightness, contrast, saturation and hue."""
DRAW_STREAM = 3
"""Last number of the seed of a draw; the order and the frames of an epoch have others (loader.py)."""
AUGMENTED_AT_ONCE = {"cpu": 40, "cuda": 320}
"""Frames that are augmented together: few for the caches of a CPU, more for few launches on a GPU."""


@dataclass(frozen=True)
class Draw:
    """Random choices for a clip's frames, or for one frame: the crop in fractions of the side, and others.

    `jitter` holds brightness, contrast, saturation and hue in the order to apply them; `sigma_pixels` is 0
    where nothing is blurred.
    """

    top: float
    left: float
    height: float
    width: float
    flip: bool = False
    sigma_pixels: float = 0.0
    jitter: tuple[tuple[str, float], ...] = ()
    grayscale: bool = False
    solarize: bool = False


CENTRE = Draw((1 - CENTRE_FRACTION) / 2, (1 - CENTRE_FRACTION) / 2, CENTRE_FRACTION, CENTRE_FRACTION)


def draw(config: AugmentConfig, seed: int, epoch: int, clip: int, frame: int = 0) -> Draw:
    """Returns the draw of a clip; with a `frame`, from 1 on, that of one of its frames."""
    random = np.random.default_rng([seed, epoch, clip, frame, DRAW_STREAM])
    box = random_box(random, config.crop_scale)
    chances = random.random(5)
    sigma = random.uniform(*SIGMA_PIXELS)
    jitter = random_jitter(random)
    if not config.crop:
        box = (CENTRE.top, CENTRE.left, CENTRE.height, CENTRE.width)
    return Draw(
        *box,
        flip=bool(config.flip and chances[0] < FLIP_PROBABILITY),
        sigma_pixels=sigma if config.blur and chances[1] < BLUR_PROBABILITY else 0.0,
        jitter=jitter if config.jitter and chances[2] < JITTER_PROBABILITY else (),
        grayscale=bool(config.grayscale and chances[3] < GRAYSCALE_PROBABILITY),
        solarize=bool(config.solarize and chances[4] < SOLARIZE_PROBABILITY),
    )


def random_box(random: np.random.Generator, scale: tuple[float, float]) -> tuple[float, float, float, float]:
    """Draws a crop in fractions of the side: top, left, height, width; ten tries, then all of it."""
    for _ in range(10):
        area = random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        height, width = math.sqrt(area / aspect), math.sqrt(area * aspect)
        if height <= 1 and width <= 1:
            return random.uniform(0, 1 - height), random.uniform(0, 1 - width), height, width
    return 0.0, 0.0, 1.0, 1.0


def random_jitter(random: np.random.Generator) -> tuple[tuple[str, float], ...]:
    """Draws factors of brightness, contrast, saturation and hue, in random order."""
    factors = [
        ("brightness", random.uniform(1 - STRENGTHS[0], 1 + STRENGTHS[0])),
        ("contrast", random.uniform(1 - STRENGTHS[1], 1 + STRENGTHS[1])),
        ("saturation", random.uniform(1 - STRENGTHS[2], 1 + STRENGTHS[2])),
        ("hue", random.uniform(-STRENGTHS[3], STRENGTHS[3])),
    ]
    return tuple(factors[place] for place in random.permutation(len(factors)))


def augment_clips(frames: Tensor, config: AugmentConfig, drawn: Sequence[tuple[int, int, int]]) -> Tensor:
    """Augments clips, each by the draw of its (seed, epoch, clip): shapes as `augment`'s."""
    if config.augment_per == "clip":
        return augment(frames, [draw(config, *each) for each in drawn], config.crop_size)
    segments = range(1, 1 + frames.shape[1])
    draws = [draw(config, *each, segment) for each in drawn for segment in segments]
    single = augment(frames.flatten(0, 1)[:, None], draws, config.crop_size)
    return single.reshape(*frames.shape[:2], *single.shape[2:])


def augment(frames: Tensor, draws: Sequence[Draw], crop_size: int) -> Tensor:
    """Augments group g by draw g: uint8 (G, N, 3, H, W) -> float32 in [0, 1], (G, N, 3, size, size)."""
    at_once = max(1, AUGMENTED_AT_ONCE[frames.device.type] // frames.shape[1])
    parts = [
        _augment_group(frames[start : start + at_once], draws[start : start + at_once], crop_size)
        for start in range(0, len(draws), at_once)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def centre_crop(frames: Tensor, crop_size: int) -> Tensor:
    """Crops the middle and resizes: uint8 (B, T, 3, H, W) -> float32 in [0, 1], (B, T, 3, size, size)."""
    return augment(frames, [CENTRE] * len(frames), crop_size)


def _augment_group(frames: Tensor, draws: Sequence[Draw], crop_size: int) -> Tensor:
    height, width = frames.shape[-2:]
    geometry = pinned(_geometry(draws, height, width), frames.device)
    down, across, other = geometry.to(frames.device, non_blocking=True)
    rows = resize_matrices(down[0], down[1], torch.zeros_like(other[0]), height, crop_size)
    columns = resize_matrices(across[0], across[1], other[0], width, crop_size)
    unit = frames.float().div_(255)
    if any(d.jitter or d.grayscale for d in draws):
        unit = transform(unit, rows, columns)
        recolour(unit, draws)
        rows = columns = torch.eye(crop_size, device=frames.device).expand(len(draws), -1, -1)
    if any(d.sigma_pixels for d in draws):
        blur = blur_matrices(other[1], crop_size)
        rows, columns = blur @ rows, blur @ columns
    unit = transform(unit, rows, columns).clamp_(0, 1)
    change_some(unit, [(solarize, [(place, 0.0) for place, d in enumerate(draws) if d.solarize])])
    return unit


def _geometry(draws: Sequence[Draw], height: int, width: int) -> Tensor:
    """Returns first pixel and length down, the same across, flip and sigma in one tensor: (3, 2, G)."""
    numbers = []
    for d in draws:
        down, across = whole_pixels(d.top, d.height, height), whole_pixels(d.left, d.width, width)
        numbers.append([[*down], [*across], [float(d.flip), d.sigma_pixels]])
    return torch.tensor(numbers).permute(1, 2, 0).contiguous()


def whole_pixels(start: float, fraction: float, size: int) -> tuple[int, int]:
    """Returns first pixel and length of a part of a side that is given in fractions."""
    length = max(1, round(fraction * size))
    return min(round(start * size), size - length), length


def transform(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiplies each axis by a matrix: (G, N, 3, H, W), (G, h, H), (G, w, W) -> (G, N, 3, h, w)."""
    groups, images, channels, height, width = frames.shape
    # Decoded frames have their channels last in memory, so this copies nothing
    pixels = frames.permute(0, 1, 3, 4, 2).reshape(groups, images, height, -1)
    down = (rows[:, None] @ pixels).reshape(groups, images, -1, width, channels)
    planes = down.permute(0, 1, 4, 2, 3).reshape(groups, -1, width)
    across = torch.bmm(planes, columns.mT)
    return across.reshape(groups, images, channels, rows.shape[1], columns.shape[1])


def resize_matrices(first: Tensor, length: Tensor, flip: Tensor, size: int, out: int) -> Tensor:
    """Returns matrices that resize a part of a side, bicubic and antialiased: (G,) each -> (G, out, size).

    Rows sum to 1. `first` and `length` are in pixels; `flip` is 1 where the part is mirrored.
    """
    first, length, flip = (value[:, None, None] for value in (first, length, flip))
    scale = length / out
    target = torch.arange(out, device=first.device, dtype=torch.float32)[:, None]
    target = target + flip * (out - 1 - 2 * target)
    source = torch.arange(size, device=first.device, dtype=torch.float32)
    distance = (source - (first + (target + 0.5) * scale - 0.5)).abs() / scale.clamp(min=1)
    inside = (source >= first) & (source < first + length)
    weights = keys_cubic(distance) * inside
    return weights / weights.sum(2, keepdim=True)


def keys_cubic(distance: Tensor) -> Tensor:
    """Evaluates Keys' cubic kernel, a = -0.5, as PIL's antialiased bicubic does: any shape -> the same."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))


def blur_matrices(sigma_pixels: Tensor, size: int) -> Tensor:
    """Returns matrices that blur a side, the identity for a sigma of 0: (G,) -> (G, size, size)."""
    place = torch.arange(size, device=sigma_pixels.device, dtype=torch.float32)
    square = ((place - place[:, None]) / sigma_pixels.clamp(min=1e-3)[:, None, None]).square()
    weights = torch.exp(-0.5 * square)
    return weights / weights.sum(2, keepdim=True)


Change = Callable[[Tensor, Tensor], Tensor]
"""Frames (G, N, 3, H, W) and a factor for each group, (G, 1, 1, 1, 1) -> changed frames."""


def recolour(frames: Tensor, draws: Sequence[Draw]) -> None:
    """Applies colour jitter, then grayscale, in place, to each group by its draw: (G, N, 3, H, W)."""
    coloured = [(g, 0.0) for g, d in enumerate(draws) if d.jitter or d.grayscale]
    turns: list[tuple[Change, list[tuple[int, float]]]] = [(limit, coloured)]
    for turn in range(len(CHANGES)):
        for name, change in CHANGES.items():
            drawn = [(g, d.jitter[turn]) for g, d in enumerate(draws) if len(d.jitter) > turn]
            turns.append((change, [(g, factor) for g, (wanted, factor) in drawn if wanted == name]))
    turns.append((adjust_saturation, [(g, 0.0) for g, d in enumerate(draws) if d.grayscale]))
    change_some(frames, turns)


def change_some(frames: Tensor, turns: Sequence[tuple[Change, Sequence[tuple[int, float]]]]) -> None:
    """Applies each change in turn to the groups that are listed with it, each with its factor, in place."""
    listed = [pair for _, groups in turns for pair in groups]
    if not listed:
        return
    sizes = [len(groups) for _, groups in turns]
    columns = pinned(torch.tensor(listed, dtype=torch.float32).mT.contiguous(), frames.device)
    places, factors = columns.to(frames.device, non_blocking=True)
    parts = torch.split(places.long(), sizes), torch.split(factors, sizes)
    for (change, groups), place, factor in zip(turns, *parts, strict=True):
        if groups:
            changed = change(frames.index_select(0, place), factor.view(-1, 1, 1, 1, 1))
            frames.index_copy_(0, place, changed)


def gray(frames: Tensor) -> Tensor:
    """Returns the luma: (..., 3, H, W) -> (..., 1, H, W)."""
    red, green, blue = torch.split(frames, 1, -3)
    return red * 0.2989 + green * 0.587 + blue * 0.114


def limit(frames: Tensor, _: Tensor) -> Tensor:
    """Limits values to [0, 1], which a bicubic resize goes beyond."""
    return frames.clamp(0, 1)


def adjust_brightness(frames: Tensor, factor: Tensor) -> Tensor:
    """Scales towards black, or away from it."""
    return (frames * factor).clamp_(0, 1)


def adjust_contrast(frames: Tensor, factor: Tensor) -> Tensor:
    """Moves towards the mean luma of each frame, or away from it."""
    mean = gray(frames).mean((-3, -2, -1), keepdim=True)
    return torch.lerp(mean, frames, factor).clamp_(0, 1)


def adjust_saturation(frames: Tensor, factor: Tensor) -> Tensor:
    """Moves towards the luma of each pixel, or away from it; a factor of 0 makes gray."""
    return torch.lerp(gray(frames), frames, factor).clamp_(0, 1)


def adjust_hue(frames: Tensor, factor: Tensor) -> Tensor:
    """Turns the hue by a part of the circle; value and chroma stay, so that gray stays gray."""
    value, least = frames.amax(-3, keepdim=True), frames.amin(-3, keepdim=True)
    chroma = value - least
    red, green, blue = torch.split(frames, 1, -3)
    sixths = torch.where(  # of the circle, from red
        value == red,
        green - blue,
        torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    sixths = sixths / chroma.clamp_min(1e-12) + 6 * factor
    # From HSV to a channel: V - C max(0, min(k, 4 - k, 1)), k = (n + hue) mod 6, n = 5, 3, 1 for R, G, B
    k = (torch.arange(5, 0, -2, device=frames.device).view(3, 1, 1) + sixths) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def solarize(frames: Tensor, _: Tensor) -> Tensor:
    """Inverts what is at least half as bright as white."""
    return torch.where(frames >= 0.5, 1 - frames, frames)


CHANGES: dict[str, Change] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
