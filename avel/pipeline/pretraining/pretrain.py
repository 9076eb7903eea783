"""`avel pretrain`: AV-BT encoders from a clip store, resumable, into a run folder."""

import math
import os
import shlex
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avel.ahead import reading_threads
from avel.config import resolve
from avel.device import choose_dtype, explain_full_memory, hardware_of, note_slow_bfloat16, tf32
from avel.digests import digest_of
from avel.errors import AvelError, ConfigError, TrainingError
from avel.grid import evenly_spaced
from avel.memory import free_memory
from avel.nn import mask_of
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.encoder import Encoder, check_crop
from avel.pipeline.encoders.saved import encoder_digest
from avel.pipeline.encoders.vectors import CACHED
from avel.pipeline.pretraining.cached import features_read, read_float16, vector_config
from avel.pipeline.pretraining.checkpoint import load_start
from avel.pipeline.pretraining.footprint import choose_clips_at_once, measure_footprint, note_long_pretraining
from avel.pipeline.pretraining.loader import Batches, ClipLoader, steps_per_epoch
from avel.pipeline.pretraining.parallel import barrier, process_group, rank, smallest, world_size
from avel.pipeline.pretraining.probe import Probe
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.record import PretrainSummary, Recorder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.settings import check_config, device_of_process
from avel.pipeline.pretraining.training import Trainer, determinism, move_to_device
from avel.pipeline.pretraining.vectors import FrozenVectors, compute_vectors, frozen_vectors, source_of_each
from avel.progress import Progress, note, set_verbosity
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from avel.stores.files import only_one
from avel.stores.kinds import kind_of
from avel.stores.runs import RECORD, Run, forget_unused, remove_unused
from avel.text import plural

VECTORS_FOLDER = "vectors"
FEWER_CLIPS = "the same call with a smaller --clips-at-once goes on from its last checkpoint"
SMALLER_BATCH = "a new run with a smaller --batch-size"
STANDARD_CLIPS = 256
"""Training clips that `standardise` takes its statistics from when the CNNs are not frozen: evenly spaced,
since a dataset may be sorted by class."""


def pretrain(
    store: ClipStore | FeatureCache | Path | str,
    run: Path | str,
    config: PretrainConfig | None = None,
    *,
    audio_features: str | None = None,
    visual_features: str | None = None,
    **options: Any,
) -> PretrainSummary:
    """Trains AV-BT (Section 3.2) on the staged train split of `store`; the run folder keeps the encoder.

    The same call goes on where an interrupted one stopped, to the same weights as an uninterrupted one (on a
    GPU with `deterministic`). Under torchrun every process takes a part of each batch.

    Args:
        store: a clip store or its path; or a feature cache, whose vectors then stand for frozen CNNs.
        run: the run folder; new, or one of the same store and config.
        config: the settings; `options` override its fields.
        audio_features: names of a cache's audio features, joined by "+"; cnn_a, or else f_a, by default.
        visual_features: the same of its visual features.

    Raises:
        ConfigError: settings that cannot be used, or not on this kind of `store`.
        WeightsError: weights of the CNNs that are missing or do not fit.
        TrainingError: nothing to train on, or a loss that is not finite.
        StoreError: `run` holds something else.
    """
    if os.environ.get("RANK", "0") != "0":
        set_verbosity(0)
    config = resolve(PretrainConfig, "pretrain", base=config, options=options)
    source = store
    if not isinstance(source, ClipStore | FeatureCache):
        source = (FeatureCache if kind_of(source) == "cache" else ClipStore).open(source)
    if isinstance(source, FeatureCache):
        config = vector_config(source, config, audio_features, visual_features)
    elif (
        audio_features
        or visual_features
        or CACHED in (config.audio.backbone.name, config.visual.backbone.name)
    ):
        raise ConfigError(
            f"{source.location.url}: a clip store, which holds no vectors to train on",
            hint="give a feature cache for STORE, or leave out --audio-features and --visual-features",
        )
    config = check_config(config)
    device, path = device_of_process(config.device), Path(run)
    video_ids = training_videos(source)
    is_new = not path.exists()
    config = replace(config, dtype=_dtype(path, config, device))
    note_slow_bfloat16(device, config.dtype)
    hint = SMALLER_BATCH if config.freeze_backbone else FEWER_CLIPS
    with process_group(device), determinism(config, device), tf32(device), explain_full_memory(hint):
        lock = only_one(path, "run") if rank() == 0 else nullcontext()
        with lock:
            try:
                return _pretrain(source, video_ids, path, config, device)
            except AvelError:
                if is_new and rank() == 0:
                    remove_unused(path)
                raise


def _dtype(run: Path, config: PretrainConfig, device: torch.device) -> Any:
    """Returns the number format asked for; for auto that of the run that is there, or the device's."""
    if config.dtype == "auto" and (run / RECORD).is_file():
        return Run.open(run, "pretrain").config(PretrainConfig).dtype
    return choose_dtype(config.dtype, device)


def training_videos(store: ClipStore | FeatureCache) -> list[str]:
    """Lists the staged or cached videos of train samples; all of them where the dataset names no splits.

    Raises:
        TrainingError: there is none.
    """
    if isinstance(store, FeatureCache):
        where, there, split = str(store.path), plural(len(store), "cached clip"), store.samples.split
        places = store.samples.video[split == "train"] if (split != "").any() else np.arange(len(store))
        wanted = [store.video_ids[place] for place in np.unique(places)]
    else:
        where, there = store.location.url, plural(len(store.staged), "staged clip")
        splits = store.dataset.split_of_video()
        wanted = [video_id for video_id in store.staged if video_id in splits]  # clips outlive their dataset
        if any(splits.values()):
            wanted = [video_id for video_id in wanted if "train" in splits[video_id]]
    if not wanted:
        raise TrainingError(
            f"{where}: no train sample among {there}",
            hint=f"{shlex.join(['avel', 'inspect', where])} shows clips and splits; without splits all clips "
            "are trained on",
        )
    return wanted


def _pretrain(
    store: ClipStore | FeatureCache,
    video_ids: list[str],
    path: Path,
    config: PretrainConfig,
    device: torch.device,
) -> PretrainSummary:
    encoder = build_encoder(config)
    if isinstance(store, ClipStore):
        check_crop(encoder.visual, encoder.spec.crop_size)
    projected = ProjectedEncoder(encoder, config)
    if config.start_from:
        load_start(projected, Path(config.start_from))
    lengths = own_lengths(store, video_ids)
    clips = [*source_of_each(store, video_ids).items()] if isinstance(store, ClipStore) else video_ids
    inputs = {
        **_about(store, config),
        "clips": len(video_ids),
        "clip_sources": digest_of(clips if lengths is None else [clips, lengths.tolist()]),
        "encoder": encoder_digest(encoder),
    }
    if rank() == 0:
        forget_unused(path)
        Run.create(path, "pretrain", config, inputs=inputs, hardware=hardware_of(device))
    barrier()
    run = Run.open(path, "pretrain")
    if run.finished:
        note(f"{path}: already finished")
        return run.read_results(PretrainSummary)
    fewest = len(video_ids) // steps_per_epoch(len(video_ids), config.batch_size)
    if fewest < world_size():
        raise TrainingError(
            f"a step of {fewest} clips cannot be shared by {world_size()} processes",
            hint="raise --batch-size, or start fewer processes",
        )
    probe = None
    if config.probe_every and isinstance(store, ClipStore) and rank() == 0:
        probe = Probe(store, frozen=config.freeze_backbone, workers=reading_threads(config.workers))
    config = replace(config, clips_at_once=_clips_at_once(projected, config, store, len(video_ids), device))
    if device.type == "cpu" and isinstance(store, ClipStore) and not config.freeze_backbone and rank() == 0:
        note_long_pretraining(projected, config, store.grid, len(video_ids))
    projected = move_to_device(projected, config, device)
    batches = make_batches(projected.encoder, store, video_ids, path, config)
    trainer = Trainer(projected, make_optimizer(projected, config), config, device)
    with closing(batches), closing(Recorder(run, trainer, len(video_ids), batches.steps, probe)) as recorder:
        done = recorder.resume().epochs
        with Progress(
            config.epochs * batches.clips, "clips", of="AV-BT", start=done * batches.clips
        ) as progress:
            for number in range(done, config.epochs):
                recorder.begin_epoch()
                recorder.epoch(trainer.epoch(number, batches, progress))
        return recorder.summary()


def _clips_at_once(
    projected: ProjectedEncoder,
    config: PretrainConfig,
    store: ClipStore | FeatureCache,
    videos: int,
    device: torch.device,
) -> int:
    """Returns how many clips the CNNs take together, 0 for all: as asked for, or as many as fit."""
    if config.clips_at_once is not None or config.freeze_backbone or isinstance(store, FeatureCache):
        return config.clips_at_once or 0
    footprint = measure_footprint(projected, config, store.grid)
    clips = math.ceil(videos / steps_per_epoch(videos, config.batch_size) / world_size())
    on_gpu = device.type == "cuda"
    here = torch.cuda.mem_get_info(device)[0] if on_gpu else free_memory() // world_size()
    free_bytes = smallest(here, device)
    return choose_clips_at_once(
        footprint, config, clips, free_bytes, can_cut=not projected.learns_statistics, on_gpu=on_gpu
    )


def make_batches(
    encoder: Encoder,
    store: ClipStore | FeatureCache,
    video_ids: list[str],
    run: Path,
    config: PretrainConfig,
) -> Batches:
    """Returns batches of frames, or of frozen CNNs' vectors; fits the standardisation if asked for."""
    workers, lengths = reading_threads(config.workers), own_lengths(store, video_ids)
    fits = config.standardise and not config.start_from
    how: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "device": next(encoder.parameters()).device,
        "lengths": lengths,
    }
    if isinstance(store, FeatureCache):
        places = store.places_of_videos(video_ids)
        cnn_a, cnn_v = (read_float16(store, each, places) for each in features_read(config))
        cnn_v = cnn_v.unsqueeze(2)
    elif config.freeze_backbone:
        path = Path(config.frozen.vectors or run / VECTORS_FOLDER)
        augmentation = config.augmentation if config.frozen.augment else None
        cnn_a, cnn_v = frozen_vectors(
            encoder, store, video_ids, config.frozen.frames, path, augmentation, config.dtype, workers
        )
    else:
        if fits:
            some = [video_ids[place] for place in evenly_spaced(len(video_ids), STANDARD_CLIPS)]
            vectors = compute_vectors(encoder, store, some, 1, workers=workers)
            standardise(encoder, *vectors, own_lengths(store, some))
        return ClipLoader(
            store, video_ids, workers=workers, decode=config.decode, epochs=config.epochs, **how
        )
    if fits:
        standardise(encoder, cnn_a, cnn_v, lengths)
    together = config.frozen.augment and config.augmentation.augment_per == "clip"
    return FrozenVectors(cnn_a, cnn_v, together=together, **how)


def _about(store: ClipStore | FeatureCache, config: PretrainConfig) -> dict[str, str]:
    """Returns path and digest of what is trained on; a cache's digest covers the features that are read."""
    if isinstance(store, FeatureCache):
        names = [name for each in features_read(config) for name in each.names]
        return {"store": str(store.path.resolve()), "store_digest": store.digest_with(names)}
    return {"store": store.location.url, "store_digest": store.digest}


def own_lengths(store: ClipStore | FeatureCache, video_ids: Sequence[str]) -> Tensor | None:
    """Returns the segments of videos, (V,), where clips have lengths of their own."""
    if isinstance(store, FeatureCache):
        if not store.differing_lengths:
            return None
        return torch.from_numpy(store.lengths[store.places_of_videos(video_ids)])
    lengths = store.lengths
    return None if lengths is None else torch.tensor([lengths[name] for name in video_ids])


def standardise(encoder: Encoder, cnn_a: Tensor, cnn_v: Tensor, lengths: Tensor | None) -> None:
    """Fits the encoder's standardisation to vectors of training clips: (V, T, Da), (V, T, k, Dv), (V,)."""
    if lengths is not None:
        mask = mask_of(lengths, cnn_a.shape[1])
        cnn_a, cnn_v = cnn_a[mask], cnn_v[mask]
    encoder.temporal.audio_standard.fit(cnn_a.flatten(0, -2))
    encoder.temporal.visual_standard.fit(cnn_v.flatten(0, -2))
