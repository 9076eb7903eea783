"""Clip stores written without any video, random frames and patches in milliseconds; and a small encoder."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avel.config import digest
from avel.grid import MEL_BANDS, MEL_FRAMES
from avel.pipeline.config import ExtractConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.saved import save_encoder
from avel.pipeline.staging.plan import stored_settings
from avel.stores.clip_layout import StoreAttributes, read_attributes
from avel.stores.clip_writer import ClipWriter, prepare_store, write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.sample import Event, Sample, Video
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter
from tests.pipeline.configs import pretrain_config

CONFIG = ExtractConfig(segments=3, fps=4, size=32)
NAMES = tuple(f"-v{number}" for number in range(11))
SPLITS = ("train", "train", "val", "test")
RANDOM_TINY = {
    "visual_backbone": "tiny",
    "audio_backbone": "tiny",
    "visual_weights": "random",
    "audio_weights": "random",
}


def dataset_of(video_ids: Sequence[str]) -> Dataset:
    """One sample a video with one event, the first video two samples of different classes."""
    samples = [
        Sample(
            number,
            video_id,
            (Event(("bark", "bell")[number % 2], 0, 1 + number % 3),),
            "good",
            SPLITS[number % 4],
        )
        for number, video_id in enumerate(video_ids)
    ]
    samples.append(Sample(len(samples), video_ids[0], (Event("horn", 0, 3),), "good", "test"))
    return make_dataset(
        "small", "small", tuple(samples), tuple(Video(name, f"{name}.mp4") for name in video_ids)
    )


def write_store(
    path: Path,
    video_ids: Sequence[str],
    *,
    failed: Sequence[str] = (),
    config: ExtractConfig = CONFIG,
    version: str = "1",
    seconds: Mapping[str, float] | None = None,
) -> Path:
    """A store of the given videos; one there gains what it lacks. `version` stands for the sources.

    With `seconds` each clip has a length of its own; the frames and patches after it are noise, too.
    """
    location = locate(path)
    found = read_attributes(location)
    old = ClipStore.open(path).video_ids if found else ()
    every = old + tuple(name for name in video_ids if name not in old)
    attributes = StoreAttributes(
        config.grid(), stored_settings(config), digest(config), "jpeg", len(every), config.waveform
    )
    prepare_store(location, attributes, every)
    dataset = dataset_of(every)
    if seconds is not None:
        dataset = dataclasses.replace(dataset, longest_seconds=max(seconds.values()))
    write_dataset(location, dataset)
    writer, manifest = ClipWriter(location, attributes.digest), ManifestWriter(location)
    for name in video_ids:
        row = every.index(name)
        if name in failed:
            manifest.append([Entry(name, row, "failed", reason="no-video", detail="no stream")])
            continue
        random = np.random.default_rng(list(f"{name}{version}".encode()))
        before = writer.written_bytes
        writer.write("log_mel", row, 0, patches(random, config))
        writer.write("frames", row, 0, jpegs(random, config))
        if config.waveform:
            writer.write(
                "waveform", row, 0, random.integers(-9999, 9999, config.grid().samples).astype(np.int16)
            )
        manifest.append(
            [
                Entry(
                    name,
                    row,
                    "staged",
                    source_sha256=f"{name}-{version}",
                    settings=attributes.digest,
                    stored_bytes=writer.written_bytes - before,
                    valid_seconds=0.0 if seconds is None else seconds[name],
                )
            ]
        )
    manifest.merge()
    return path


def patches(random: np.random.Generator, config: ExtractConfig) -> np.ndarray:
    """Log-mel patches (T, 96, 64)."""
    return random.normal(size=(config.segments, MEL_FRAMES, MEL_BANDS)).astype(np.float32)


def jpegs(random: np.random.Generator, config: ExtractConfig) -> list[bytes]:
    """A JPEG file for each frame."""
    files = []
    for _ in range(config.grid().frames):
        cells = random.integers(0, 255, (4, 4, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(cells).resize((config.size, config.size)).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    return files


def other_settings() -> ExtractConfig:
    """Staging that gives other numbers."""
    return dataclasses.replace(CONFIG, jpeg_quality=90)


def encoder_run(folder: Path, **options: Any) -> Path:
    """What a run of `pretrain` leaves behind: a small encoder, `options` its settings."""
    tiny = {**RANDOM_TINY, "crop_size": 28, "hidden": 8}
    encoder = build_encoder(pretrain_config(**(tiny | options)))
    save_encoder(encoder, folder / "encoder.safetensors", epochs=1)
    return folder
