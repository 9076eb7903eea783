"""Augmentation against torchvision and written-out convolutions; draws that depend on what they should."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from avel.pipeline.config import AugmentConfig
from avel.pipeline.pretraining.augment import (
    CENTRE,
    Draw,
    augment,
    augment_clips,
    blur_matrices,
    centre_crop,
    draw,
    random_box,
)
from avel.pipeline.pretraining.loader import batches_of, random_choices
from avel.pipeline.pretraining.presets import PRESETS

EVERYTHING = AugmentConfig(flip=True, jitter=True, grayscale=True, solarize=True)
NOTHING = AugmentConfig(crop=False, blur=False)
WHOLE = Draw(0, 0, 1, 1)


def frames(clips: int = 2, each: int = 3, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (clips, each, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("out", [24, 56, 100])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_torchvisions_bicubic_one(out: int, flip: bool) -> None:
    boxes = [(3, 10, 40, 52), (0, 0, 64, 64)]
    draws = [Draw(top / 64, left / 64, h / 64, w / 64, flip=flip) for top, left, h, w in boxes]
    pictures = frames()
    found = augment(pictures, draws, out)
    for clip, box in enumerate(boxes):
        expected = reference.resized_crop(
            pictures[clip].float() / 255, *box, [out, out], InterpolationMode.BICUBIC, antialias=True
        ).clamp(0, 1)
        expected = expected.flip(-1) if flip else expected
        torch.testing.assert_close(found[clip], expected, atol=1e-4, rtol=0)


def test_the_centre_of_a_staged_frame_is_cut_out_exactly() -> None:
    pictures = frames(1, 1, 256)
    assert torch.equal(centre_crop(pictures, 224), pictures[..., 16:240, 16:240].float() / 255)
    assert centre_crop(pictures, 64).shape == (1, 1, 3, 64, 64)


def test_blur_is_a_gaussian_with_renormalised_borders() -> None:
    sigma, size = 1.3, 40
    picture = frames(1, 1, size)[0, 0, 0].numpy() / 255
    kernel = [np.exp(-0.5 * (offset / sigma) ** 2) for offset in range(size)]
    along_rows = np.zeros((size, size))
    for row in range(size):
        for place in range(size):
            weights = np.array([kernel[abs(place - other)] for other in range(size)])
            along_rows[row, place] = (weights * picture[row]).sum() / weights.sum()
    expected = np.zeros((size, size))
    for column in range(size):
        for place in range(size):
            weights = np.array([kernel[abs(place - other)] for other in range(size)])
            expected[place, column] = (weights * along_rows[:, column]).sum() / weights.sum()
    found = augment(frames(1, 1, size), [dataclasses.replace(WHOLE, sigma_pixels=sigma)], size)
    np.testing.assert_allclose(found[0, 0, 0].numpy(), expected, atol=1e-5)
    assert torch.equal(blur_matrices(torch.zeros(1), size)[0], torch.eye(size))


def test_colour_follows_the_drawn_order_and_solarisation_comes_last() -> None:
    picture = frames(1, 2)
    drawn = dataclasses.replace(
        WHOLE, jitter=(("hue", 0.05), ("contrast", 1.3)), grayscale=True, solarize=True
    )
    x = reference.adjust_contrast(reference.adjust_hue(picture[0].float() / 255, 0.05), 1.3)
    x = reference.rgb_to_grayscale(x, num_output_channels=3)
    expected = torch.where(x >= 0.5, 1 - x, x)
    torch.testing.assert_close(augment(picture, [drawn], 64)[0], expected, atol=1e-5, rtol=0)


def one_by_one(picture: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Colours of a clip's frames, uint8 (N, 3, H, W), by torchvision's functions: -> floats."""
    x = picture.float() / 255
    for name, factor in drawn.jitter:
        x = getattr(reference, f"adjust_{name}")(x, factor)
    if drawn.grayscale:
        x = reference.rgb_to_grayscale(x, num_output_channels=3)
    return reference.solarize(x, 0.5) if drawn.solarize else x


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_colours_of_many_clips_are_those_of_one_by_one(per: Literal["clip", "frame"]) -> None:
    config = dataclasses.replace(
        EVERYTHING, crop=False, blur=False, flip=False, crop_size=28, augment_per=per
    )
    clips, each = 60, 3
    pictures = frames(clips, each, 32)
    pictures[0], pictures[1, 0] = 0, 255  # black and white have no hue
    found = augment_clips(pictures, config, [(0, 0, clip) for clip in range(clips)])
    chosen = [
        [draw(config, 0, 0, clip, 0 if per == "clip" else 1 + n) for n in range(each)]
        for clip in range(clips)
    ]
    orders = {tuple(name for name, _ in drawn.jitter) for draws in chosen for drawn in draws}
    assert len(orders) > 15, "of 24, and none"
    for clip, draws in enumerate(chosen):
        for n, drawn in enumerate(draws):
            middle = pictures[clip, n : n + 1, :, 2:30, 2:30]
            torch.testing.assert_close(found[clip, n : n + 1], one_by_one(middle, drawn), atol=2e-5, rtol=0)


def test_nothing_switched_on_is_the_centre() -> None:
    assert draw(NOTHING, 0, 3, 4) == CENTRE


def test_a_draw_depends_on_seed_epoch_clip_and_frame() -> None:
    first = draw(EVERYTHING, 0, 0, 0)
    assert draw(EVERYTHING, 0, 0, 0) == first
    others = [draw(EVERYTHING, *place) for place in ((0, 1, 0), (0, 0, 1), (0, 0, 0, 1), (1, 0, 0))]
    assert all(other != first for other in others)


@pytest.mark.parametrize("name", ["flip", "blur", "jitter", "grayscale", "solarize"])
def test_switching_one_off_leaves_the_others_as_they_are(name: str) -> None:
    field = {"blur": "sigma_pixels"}.get(name, name)
    nothing = getattr(CENTRE, field)
    for clip in range(20):
        kept = draw(EVERYTHING, 0, 0, clip)
        without = draw(dataclasses.replace(EVERYTHING, **{name: False}), 0, 0, clip)
        assert without == dataclasses.replace(kept, **{field: nothing})


def test_draws_are_as_frequent_as_barlow_twins() -> None:
    draws = [draw(EVERYTHING, 0, 0, clip) for clip in range(2000)]
    drawn = {
        "flip": (0.5, [d.flip for d in draws]),
        "blur": (0.5, [d.sigma_pixels > 0 for d in draws]),
        "jitter": (0.8, [bool(d.jitter) for d in draws]),
        "grayscale": (0.2, [d.grayscale for d in draws]),
        "solarize": (0.1, [d.solarize for d in draws]),
    }
    for name, (probability, found) in drawn.items():
        assert np.mean(found) == pytest.approx(probability, abs=0.04), name


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_crops_keep_the_asked_fraction_of_the_area(scale: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    boxes = np.array([random_box(random, scale) for _ in range(1000)])
    areas, ends = boxes[:, 2] * boxes[:, 3], boxes[:, :2] + boxes[:, 2:]
    assert areas.min() >= scale[0] - 1e-9
    assert areas.min() == pytest.approx(scale[0], abs=0.05)
    assert areas.max() > 0.9
    assert (boxes[:, :2] >= 0).all()
    assert (ends <= 1 + 1e-9).all()


def test_many_clips_are_augmented_each_by_its_own_draw() -> None:
    pictures = (frames(150, 1) > 127).to(torch.uint8) * 255  # black and white: a resize overshoots both
    draws = [draw(EVERYTHING, 0, 0, clip) for clip in range(150)]
    together = augment(pictures, draws, 24)
    alone = torch.cat([augment(pictures[n : n + 1], draws[n : n + 1], 24) for n in range(150)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_draws_of_a_clip_and_of_its_frames_share_no_stream_with_order_and_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = []
    original = np.random.default_rng

    def watched(seed: list[int]) -> np.random.Generator:
        random = original(seed)
        streams.append(original(seed).integers(0, 2**62, 4).tolist())
        return random

    monkeypatch.setattr(np.random, "default_rng", watched)
    for clip in range(5):
        random_choices(0, 0, clip, 10, 16)
        for frame in range(12):
            draw(EVERYTHING, 0, 0, clip, frame)
    batches_of(5, 2, 0, 0)
    assert len(streams) == 5 * 13 + 1
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_table_5_is_the_papers_row_by_row(shared: Path) -> None:
    lines = (shared / "seeds/ran2022-avbt-tacma.txt").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("Crop\tFlip\t")) + 1
    paper = [line.split("\t")[:6] for line in lines[start : start + 10]]
    rows = [preset for name, preset in PRESETS.items() if name.startswith("table5")]
    assert len(rows) == 10
    for row, marks in zip(rows, paper, strict=True):
        switched = [row[name] for name in ("crop", "flip", "solarize", "grayscale", "jitter", "blur")]
        assert switched == [mark in ("1", "✓ *") for mark in marks]
        gentle = "*" in marks[0]
        assert (row.get("crop_scale", AugmentConfig().crop_scale)[0] > 0.08) == gentle
