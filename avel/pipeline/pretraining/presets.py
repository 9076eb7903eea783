"""Named sets of pretraining options: the paper, 2e-4 on all rates, the rows of Tables 4 and 5."""

from collections.abc import Mapping
from typing import Any

GENTLE_CROP = (0.5, 1.0)
"""Table 5's starred crop is "relatively smaller", no number given: at least half the frame stays."""


def table5(**switched: bool) -> dict[str, Any]:
    """Returns a row of Table 5: all six augmentations, except those switched off."""
    names = ("crop", "flip", "solarize", "grayscale", "jitter", "blur")
    return {name: switched.get(name, True) for name in names}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "paper-literal": {"lr_scale": 2e-4, "lr_scale_backbone": 2e-4},
    "table4-agva": {"agva": True},
    "table4-separate-projectors": {"shared_projector": False},
    "table5-all-gentle-crop": {**table5(), "crop_scale": GENTLE_CROP},
    "table5-all": table5(),
    "table5-no-flip": table5(flip=False),
    "table5-no-flip-solarize": table5(flip=False, solarize=False),
    "table5-crop-jitter-blur": table5(flip=False, solarize=False, grayscale=False),
    "table5-crop-blur": table5(flip=False, solarize=False, grayscale=False, jitter=False),
    "table5-crop": table5(flip=False, solarize=False, grayscale=False, jitter=False, blur=False),
    "table5-crop-flip-blur": table5(solarize=False, grayscale=False, jitter=False),
    "table5-no-jitter": table5(jitter=False),
    "table5-none": dict.fromkeys(table5(), False),
    "small": {
        "optimizer": "adamw",
        "freeze_backbone": True,
        "standardise": True,
        "projector": "512-512-512",
        "correlate": "batch",
    },
}
"""Preset name -> overrides of PretrainConfig. `small` is not the paper's: few clips, on a CPU, in minutes."""
