"""Runs an encoder's Bi-LSTMs over a feature cache that holds the vectors which they read."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from avel.device import explain_full_memory, hardware_of, tf32
from avel.errors import ConfigError, StaleError
from avel.nn import mask_of
from avel.pipeline.caching.key import encoder_identity, pretraining_seed
from avel.pipeline.caching.request import options_of
from avel.pipeline.caching.workers import devices_of
from avel.pipeline.config import CacheConfig
from avel.pipeline.encoders.backbones import Backbone
from avel.pipeline.encoders.build import model_folders
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.encoders.saved import cnn_digest, load_encoder
from avel.pipeline.encoders.vectors import VectorsConfig, read_vectors
from avel.progress import Progress
from avel.stores.cache_lock import parts_folder
from avel.stores.features import FeatureCache, cache_command, write_features
from avel.stores.files import check_can_replace, partial_folder
from avel.stores.hdf5 import new_hdf5
from avel.stores.named_features import GROUP, which_drops
from avel.stores.provenance import NETWORK, VECTORS
from avel.stores.runs import library_versions

OF_STORE = ("staging", "preprocessing", "cnn", "annotations", "damaged", "grid", "store")
"""Keys of the provenance that a cache shares with the one whose CNN vectors it was made of."""


def encode_vectors(
    source: Path, cache: Path, encoder: Path | None, config: CacheConfig, overwrite: bool
) -> FeatureCache:
    """Writes f_a and f_v of all videos of the cache `source`, with its samples, and returns the new cache.

    The encoder was trained on vectors of a cache, or its CNNs are those that made cnn_a and cnn_v of
    `source`. With `keep_cnn` the vectors that it reads are kept as cnn_a and cnn_v.

    Raises:
        ConfigError: no encoder, one that reads maps, or settings of CNNs.
        StaleError: the encoder has other CNNs than those of `source`, or reads frames of another size.
        StoreError: `source` lacks the features that the encoder reads; or `cache` exists, and no `overwrite`.
    """
    if encoder is None:
        raise ConfigError(
            f"{source}: a feature cache, and no encoder to run on it",
            hint="--encoder RUN, of avel pretrain; or give a clip store",
        )
    if idle := config.changed(config.of_clips):
        raise ConfigError(f"{idle} beside a feature cache, on which no CNN runs", hint="leave it out")
    if cache.resolve() == source.resolve():
        raise ConfigError(f"{cache}: is also what is read", hint="name another file")
    check_can_replace(cache, overwrite)
    identity, vectors = encoder_identity(encoder, config), FeatureCache.open(source)
    loaded = load_encoder(encoder, folders=model_folders(config))
    device = torch.device(devices_of(config.device)[0])
    read = _read_by(loaded.audio, "cnn_a"), _read_by(loaded.visual, "cnn_v")
    if read == (loaded.audio.config, loaded.visual.config):  # trained on vectors of a cache
        names = [name for each in read for name in each.names]
        made: dict[str, Any] = {
            VECTORS: {"cache_digest": vectors.digest, "provenance": _source_provenance(vectors, names)},
            "hardware": [hardware_of(device)],
            "source_runs": vectors.inputs.runs,
        }
    else:
        made = _made_of_cnns(vectors, cache, encoder, loaded, config, hardware_of(device))
    weights = {name: values.numpy() for name, values in loaded.temporal.state_dict().items()}
    loaded.temporal.to(device)
    widths = dict.fromkeys(("f_a", "f_v"), 2 * loaded.temporal.audio_lstm.hidden_size)
    if config.keep_cnn:
        widths |= {"cnn_a": read[0].dimensions, "cnn_v": read[1].dimensions}
    shapes = {name: (len(vectors), vectors.grid_segments, width) for name, width in widths.items()}
    room = sum(4 * math.prod(shape) for shape in shapes.values())
    # Into a file beside the cache first: in memory, the features of 10^5 clips would take 2 to 10 GB
    beside = parts_folder(cache) / "computed"
    with partial_folder(beside) as folder, new_hdf5(folder / "features.h5", room) as file:
        arrays = {name: file.create_dataset(name, shape, np.float32) for name, shape in shapes.items()}
        with tf32(device), explain_full_memory("name a smaller --batch-size"):
            _compute(arrays, vectors, loaded, read, config.batch_size, device)
        return write_features(
            cache,
            video_ids=vectors.video_ids,
            categories=vectors.categories,
            samples=vectors.samples,
            arrays=arrays,
            segment_seconds=vectors.segment_seconds,
            missing=vectors.missing,
            provenance={
                "encoder": identity,
                "pretraining_seed": pretraining_seed(encoder),
                "versions": library_versions(),
                "run": str(encoder.resolve()),
                **made,
            },
            lengths=vectors.lengths,
            sources=vectors.sources,
            temporal=weights if config.keep_cnn else None,
        )


def _made_of_cnns(
    vectors: FeatureCache, cache: Path, path: Path, encoder: Encoder, config: CacheConfig, hardware: str
) -> dict[str, Any]:
    """Returns the provenance of a cache as if the encoder had read the clips that `vectors` was made of.

    Raises:
        ConfigError, StaleError: what `encode_vectors` raises of CNNs.
    """
    more = ["--overwrite"] if cache.exists() else []
    made_of_clips = cache_command(vectors.inputs.store or "STORE", cache, path, options_of(config), *more)
    if encoder.temporal.attention is not None:
        raise ConfigError(f"{path}: attends over visual maps, not vectors of a cache", hint=made_of_clips)
    found, wanted = vectors.provenance.get("cnn"), cnn_digest(encoder)
    if found != wanted:
        raise StaleError(
            f"{vectors.path}: its vectors are of other CNNs ({found}) than this encoder's ({wanted})",
            hint=f"{made_of_clips} makes it of clips, with the CNNs of the encoder",
        )
    before, size = vectors.typed_provenance, encoder.spec.crop_size
    frames, dtype = before.preprocessing.frames, before.preprocessing.dtype
    if before.preprocessing.crop_size != size:
        again = vectors.command("--crop-size", str(size), "--overwrite")
        raise StaleError(
            f"{vectors.path}: its CNNs read crops of {before.preprocessing.crop_size} pixels, this "
            f"encoder's read {size}",
            hint=f"{again} makes it again{which_drops(vectors.named)}",
        )
    options = CacheConfig(frames_per_segment=len(frames), dtype=dtype, keep_cnn=config.keep_cnn)
    earlier = [*before.earlier_versions, before.versions]
    return {name: vectors.provenance[name] for name in OF_STORE} | {
        "arrays": ["f_a", "f_v", *(["cnn_a", "cnn_v"] if config.keep_cnn else [])],
        "hardware": sorted({*before.hardware, hardware}),
        "earlier_versions": [each for each in earlier if each != library_versions()],
        "options": options_of(options),
    }


def _read_by(cnn: Backbone, name: str) -> VectorsConfig:
    """Returns the features that stand for a CNN: those it names, or its own vectors, which have this name."""
    return cnn.config if isinstance(cnn.config, VectorsConfig) else VectorsConfig(name, cnn.width)


def _source_provenance(cache: FeatureCache, names: Sequence[str]) -> dict[str, Any]:
    """Returns what the provenance of a cache says of its networks, and of features of these names."""
    own = {key: cache.provenance[key] for key in (*NETWORK, VECTORS) if key in cache.provenance}
    return {**own, GROUP: {name: vars(cache.named[name]) for name in names if name in cache.named}}


@torch.inference_mode()
def _compute(
    arrays: Mapping[str, h5py.Dataset],
    cache: FeatureCache,
    encoder: Encoder,
    read: tuple[VectorsConfig, VectorsConfig],
    batch_size: int,
    device: torch.device,
) -> None:
    """Computes f_a, f_v and, if `arrays` name them, the vectors that are read, cnn_a and cnn_v: (V, T, D)."""
    with Progress(len(cache), "clips", of="AV-BT features") as progress:
        for first in range(0, len(cache), batch_size):
            videos = np.arange(first, min(first + batch_size, len(cache)))
            cnn_a, cnn_v = (read_vectors(cache, each, videos).to(device) for each in read)
            mask = None
            if cache.differing_lengths:
                mask = mask_of(torch.from_numpy(cache.lengths[videos]).to(device), cache.grid_segments)
            f_a, f_v = encoder.temporal(cnn_a, cnn_v, mask)
            every = {"f_a": f_a, "f_v": f_v, "cnn_a": cnn_a, "cnn_v": cnn_v}
            for name, array in arrays.items():
                array[first : first + len(videos)] = every[name].float().cpu().numpy()
            progress.advance(len(videos))
