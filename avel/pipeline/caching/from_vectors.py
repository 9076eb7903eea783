"""Features of an encoder that was trained on a feature cache's vectors, for all clips of such a cache."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.config import as_dict
from avel.device import explain_full_memory, hardware_of, tf32
from avel.errors import ConfigError
from avel.nn import mask_of
from avel.pipeline.caching.key import pretraining_seed
from avel.pipeline.caching.workers import devices_of
from avel.pipeline.config import CacheConfig
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.encoders.header import read_temporal
from avel.pipeline.encoders.saved import encoder_digest, load_encoder
from avel.pipeline.encoders.vectors import VectorsConfig, read_vectors
from avel.progress import Progress
from avel.stores.features import FeatureCache, write_features
from avel.stores.files import check_can_replace
from avel.stores.named_features import GROUP
from avel.stores.provenance import NETWORK, VECTORS
from avel.stores.runs import library_versions


def encode_vectors(
    source: Path, cache: Path, encoder: Path | None, config: CacheConfig, overwrite: bool
) -> FeatureCache:
    """Writes f_a and f_v of all videos of the cache `source`, with its samples, and returns the new cache.

    With `keep_cnn` the vectors that the encoder reads are kept as cnn_a and cnn_v.

    Raises:
        ConfigError: no encoder, one that reads frames and sound, or settings of CNNs.
        StoreError: `source` lacks the features that the encoder reads; or `cache` exists, and no `overwrite`.
    """
    if encoder is None:
        raise ConfigError(
            f"{source}: a feature cache, and no encoder to run on it",
            hint="--encoder RUN, of avel pretrain on a feature cache; or give a clip store",
        )
    if idle := config.changed(config.of_clips):
        raise ConfigError(f"{idle} beside a feature cache, on which no CNN runs", hint="leave it out")
    if cache.resolve() == source.resolve():
        raise ConfigError(f"{cache}: is also what is read", hint="name another file")
    check_can_replace(cache, overwrite)
    source_cache, loaded = FeatureCache.open(source), load_encoder(encoder)
    audio, visual = loaded.spec.audio.backbone, loaded.spec.visual.backbone
    if not (isinstance(audio, VectorsConfig) and isinstance(visual, VectorsConfig)):
        command = shlex.join(["avel", "cache-features", "STORE", str(cache), "--encoder", str(encoder)])
        raise ConfigError(f"{encoder}: reads frames and sound, not vectors of a cache", hint=command)
    device = torch.device(devices_of(config.device)[0])
    loaded.to(device)
    with tf32(device), explain_full_memory("name a smaller --batch-size"):
        arrays = _arrays(source_cache, loaded, (audio, visual), config, device)
    write_features(
        cache,
        video_ids=source_cache.video_ids,
        categories=source_cache.categories,
        samples=source_cache.samples,
        arrays=arrays,
        segment_seconds=source_cache.segment_seconds,
        missing=source_cache.missing,
        provenance={
            "encoder": {"kind": "run", "digest": encoder_digest(loaded), **as_dict(loaded.spec)},
            VECTORS: {
                "cache_digest": source_cache.digest,
                "provenance": _told(source_cache, (*audio.names, *visual.names)),
            },
            "pretraining_seed": pretraining_seed(encoder),
            "hardware": [hardware_of(device)],
            "versions": library_versions(),
            "run": str(encoder.resolve()),
            "source_runs": source_cache.inputs.runs,
        },
        lengths=source_cache.lengths,
        sources=source_cache.sources,
        temporal=read_temporal(encoder) if config.keep_cnn else None,
    )
    return FeatureCache.open(cache)


def _told(cache: FeatureCache, names: Sequence[str]) -> dict[str, Any]:
    """Returns what the provenance of a cache says of its networks, and of features of these names."""
    own = {key: cache.provenance[key] for key in (*NETWORK, VECTORS) if key in cache.provenance}
    return {**own, GROUP: {name: vars(cache.named[name]) for name in names if name in cache.named}}


@torch.inference_mode()
def _arrays(
    cache: FeatureCache,
    encoder: Encoder,
    read: tuple[VectorsConfig, VectorsConfig],
    config: CacheConfig,
    device: torch.device,
) -> dict[str, NDArray[np.float32]]:
    """Computes f_a and f_v, and cnn_a and cnn_v where they are kept: (V, T, D) by name."""
    parts: dict[str, list[Tensor]] = {}
    count = len(cache.video_ids)
    with Progress(count, "clips", of="AV-BT features") as progress:
        for first in range(0, count, config.batch_size):
            videos = np.arange(first, min(first + config.batch_size, count))
            cnn_a, cnn_v = (read_vectors(cache, each, videos).to(device) for each in read)
            mask = None
            if cache.differing_lengths:
                mask = mask_of(torch.from_numpy(cache.lengths[videos]).to(device), cache.grid_segments)
            f_a, f_v = encoder.temporal(cnn_a, cnn_v, mask)
            kept = {"cnn_a": cnn_a, "cnn_v": cnn_v} if config.keep_cnn else {}
            for name, values in {"f_a": f_a, "f_v": f_v, **kept}.items():
                parts.setdefault(name, []).append(values.float().cpu())
            progress.advance(len(videos))
    return {name: torch.cat(values).numpy() for name, values in parts.items()}
