"""Writes pictures of clips for the page: a strip of frames and a spectrogram as JPEG files."""

import os
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from avel.errors import StoreError
from avel.progress import note
from avel.views.footage import Footage

STRIP_PIXELS = 96
"""Side of a frame in the strip."""
QUALITY = 82
SOUND_SCALE = 2
"""Pixels in height of a mel band."""


def write_pictures(footage: Footage, video_id: str, folder: Path, number: int) -> bool:
    """Writes NUMBER-frames.jpg and -sound.jpg of a clip.

    Returns False if it is not staged, or damaged, which a note says.
    """
    try:
        frames, patches = footage.frames(video_id), footage.log_mel(video_id)
    except StoreError as error:
        note(f"pictures of {video_id} are left out: {'; '.join(filter(None, (error.message, error.hint)))}")
        return False
    if frames is None or patches is None:
        return False
    for name, picture in (("frames", strip(frames)), ("sound", spectrogram(patches))):
        picture.save(folder / f"{number}-{name}.jpg", quality=QUALITY)
    return True


def strip(frames: NDArray[np.uint8]) -> Image.Image:
    """Puts one frame a segment side by side: (T, H, W, 3) -> a picture of T squares."""
    small = [Image.fromarray(frame).resize((STRIP_PIXELS, STRIP_PIXELS)) for frame in frames]
    return Image.fromarray(np.concatenate([np.asarray(each) for each in small], axis=1))


def spectrogram(log_mel: NDArray[np.float32]) -> Image.Image:
    """Draws low frequencies at the bottom, time to the right: (T, 96, 64) -> a picture of 96 T by 128."""
    bands = log_mel.reshape(-1, log_mel.shape[-1]).T[::-1]
    low, high = np.percentile(bands, (2, 99.8))
    level = np.clip((bands - low) / max(high - low, 0.1), 0, 1)
    coloured = (colormaps["magma"](level)[..., :3] * 255).astype(np.uint8)
    return Image.fromarray(coloured.repeat(SOUND_SCALE, axis=0))


def link_video(source: Path | None, folder: Path, number: int, *, copy: bool) -> str | None:
    """Returns the link from the page in `folder` to a video, or to a copy of it beside the page."""
    if source is None:
        return None
    if copy:
        target = folder / "videos" / f"{number}{source.suffix.lower()}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        return quote(f"videos/{target.name}")
    return "./" + quote(os.path.relpath(source.resolve(), folder.resolve()))
