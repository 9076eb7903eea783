"""`predict`: finds events in videos by a trained head and the encoders of its features."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.device import choose_device, explain_full_memory, tf32
from avel.errors import AvelError, ConfigError, UnknownNameError
from avel.heads.models.head import Model
from avel.heads.tasks.task import Task
from avel.heads.training.data import arrays_of, inputs_of
from avel.heads.training.fit import arithmetic
from avel.heads.training.records import (
    TrialRecord,
    load_model,
    mean_val_score,
    read_trained,
    read_trial,
    task_of,
    trained_groups,
)
from avel.pipeline.media.refusal import ClipRefused
from avel.progress import Progress
from avel.recipes.predicting.events import FORMAT_OF, OF_ONE_VIDEO, WRITERS, VideoEvents, find_events
from avel.recipes.predicting.overlay import write_preview
from avel.recipes.predicting.video_encoder import VideoEncoder, VideoFeatures, merge_windows, window_starts
from avel.stores.files import check_can_write, path_text, write_text
from avel.stores.runs import Run
from avel.text import listed, plural
from avel.views.reading import open_cache

WINDOWS_AT_ONCE = 64
Paths = Path | str | Sequence[Path | str]


@dataclass(frozen=True)
class Predicted:
    """Events found in videos.

    Attributes:
        found: events of each video that could be read.
        failed: video that could not be read -> why.
        trials: the run's trials whose probabilities were averaged.
        written: files that were written.
    """

    found: tuple[VideoEvents, ...]
    failed: dict[str, str]
    trials: tuple[str, ...]
    written: tuple[str, ...] = ()

    def headline(self) -> str:
        """Returns the result in one line."""
        events = sum(len(video.events) for video in self.found)
        lost = f"; {plural(len(self.failed), 'video')} could not be read" if self.failed else ""
        written = f"; written to {listed(self.written)}" if self.written else ""
        by = plural(len(self.trials), "trial")
        return f"{plural(events, 'event')} in {plural(len(self.found), 'video')}, by {by}{lost}{written}"

    def lines(self) -> list[str]:
        """Returns the events as a table, and the videos that could not be read."""
        shown = [*WRITERS["table"](self.found).splitlines(), ""] if self.found else []
        return [*shown, *(f"{video}: {why}" for video, why in self.failed.items())]


def predict(
    run: Path | str,
    videos: Sequence[Path | str],
    *,
    out: Path | str | None = None,
    format: str = "auto",
    preview: Path | str | None = None,
    trial: str | None = None,
    encoder: Path | str | None = None,
    visual_weights: Paths = (),
    audio_weights: Paths = (),
    device: str = "auto",
) -> Predicted:
    """Finds events in videos of any length, which are staged and encoded like the cache of `run`.

    >>> predict("runs/tacma", ["street.mp4"]).found[0].events[0]  # doctest: +SKIP
    FoundEvent(start_seconds=2.0, end_seconds=7.0, category='Church bell', probability=0.93)

    Args:
        out: file for the events: .json, .csv, .tsv (DESED), or of one video .vtt, .txt (Audacity).
        format: what `out` is written in, such as activitynet; "auto" goes by its ending.
        preview: picture (.png) or copy (.mp4) of one video with the events drawn in.
        trial: one trial of the run; by default the mean over the trials of its best setting on val.
        encoder: where the cache's encoder run lies now, if it was moved.
        visual_weights: file, or several, of visual backbones that the cache knows by their hash only; or
            folder of a model of timm or transformers that was moved.
        audio_weights: the same for audio backbones.

    Raises:
        ConfigError: no videos; several, for a format that holds the events of one; two of one name, for a
            format that tells videos apart by name; `out` or `preview` is one of the videos, or its ending
            stands for no format.
        UnknownNameError: no such `format`.
        MissingPathError, StoreError: run, cache or encoder are gone or damaged.
        StaleError: encoder, weights or staging are not those of the cache.
        DeviceMemoryError: the GPU has no room for the networks and a part of a video.
        AvelError: `preview` of a video that cannot be read.
    """
    format_name = _check(videos, out, format, preview)
    opened = Run.open(run, "heads")
    chosen, cache = choose_trials(opened, trial), open_cache(opened)
    names = dict.fromkeys(name for record in chosen for names in arrays_of(record.inputs) for name in names)
    target = choose_device(device)
    video_encoder = VideoEncoder(
        cache,
        list(names),
        encoder=None if encoder is None else Path(encoder),
        weights={"visual": _paths(visual_weights), "audio": _paths(audio_weights)},
        device=str(target),
    )
    models = [(record, load_model(opened, record, target)) for record in chosen]
    task = task_of(opened)
    found: list[VideoEvents] = []
    failed: dict[str, str] = {}
    with Progress(len(videos), "videos") as progress, tf32(target), explain_full_memory("--device cpu"):
        for video in map(Path, videos):
            try:
                features = video_encoder.encode(video)
                probabilities = segment_probabilities(video_encoder, models, features, target)
                seconds = video_encoder.segment_seconds
                found.append(_events(video, features, probabilities, task, seconds))
            except ClipRefused as refused:
                failed[path_text(video)] = refused.message
            progress.advance(failed=int(path_text(video) in failed))
    written = _write(found, failed, out, format_name, preview)
    return Predicted(tuple(found), failed, tuple(record.name for record in chosen), written)


def segment_probabilities(
    video_encoder: VideoEncoder,
    models: Sequence[tuple[TrialRecord, Model]],
    features: VideoFeatures,
    device: torch.device,
) -> NDArray[np.float64]:
    """Computes class probabilities of the video's L segments, the mean over trials: (L, K)."""
    length, width = len(features), video_encoder.segments
    starts = window_starts(length, width)
    lengths = None if length >= width else torch.tensor([length], device=device)
    parts: list[list[Tensor]] = [[] for _ in models]
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        windows = _windows(features, starts[first : first + WINDOWS_AT_ONCE], width, device)
        values = {name: each.float() for name, each in video_encoder.features(windows, lengths).items()}
        for place, (record, model) in enumerate(models):
            audio, visual = inputs_of(record.inputs, values.__getitem__)
            with torch.inference_mode(), arithmetic(record.config, device):
                parts[place].append(model.head.task.probabilities(model(audio, visual, lengths).logits).cpu())
    merged = [merge_windows(torch.cat(each).double().numpy(), starts) for each in parts]
    return np.asarray(np.mean(merged, 0)[:length], np.float64)


def _windows(
    features: VideoFeatures, starts: list[int], width: int, device: torch.device
) -> list[dict[str, Tensor]]:
    """Cuts out windows of T segments, 0 after the end of the video: (L, ...) -> (W, T, ...) by name."""
    short = max(0, width - len(features))

    def cut(values: Tensor) -> Tensor:
        whole = torch.cat([values, values.new_zeros(short, *values.shape[1:])])
        return torch.stack([whole[start : start + width] for start in starts]).to(device)

    return [{name: cut(values) for name, values in each.items()} for each in features.vectors]


def choose_trials(run: Run, name: str | None) -> list[TrialRecord]:
    """Returns the trial of that name, or all of the setting with the best mean validation score.

    Raises:
        StoreError: no such trial, or none that was trained to its end.
    """
    if name is not None:
        return [read_trial(run, name)]
    return max(trained_groups(read_trained(run)).values(), key=mean_val_score)


def _events(
    video: Path,
    features: VideoFeatures,
    probabilities: NDArray[np.float64],
    task: Task,
    segment_seconds: float,
) -> VideoEvents:
    shown = probabilities[: features.segments(segment_seconds)]
    best = shown.argmax(1)
    return VideoEvents(
        video=path_text(video),
        valid_seconds=round(features.valid_seconds, 3),
        segment_seconds=segment_seconds,
        events=find_events(shown, task, segment_seconds, features.valid_seconds),
        segments=tuple(
            (task.output_names[number], round(float(shown[place, number]), 4))
            for place, number in enumerate(best.tolist())
        ),
        damage=features.damage,
    )


def _paths(paths: Paths) -> list[Path]:
    """Returns a path, or several, as a list."""
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def _check(videos: Sequence[Any], out: Path | str | None, format: str, preview: Path | str | None) -> str:
    """Checks what is asked for, and returns the name of the format of `out`, "" without `out`."""
    if not videos:
        raise ConfigError("no videos", hint="avel predict RUN VIDEO...")
    name = "" if out is None else _format_of(Path(out), format)
    if preview is not None and Path(preview).suffix.lower() not in (".png", ".mp4"):
        raise ConfigError(f"{preview}: --preview must end in .png or .mp4")
    for target in (out, preview):
        if target is None:
            continue
        check_can_write(Path(target))
        if Path(target).resolve() in {Path(video).resolve() for video in videos}:
            raise ConfigError(
                f"{target}: is one of the videos, and would be overwritten", hint="name another file"
            )
    single = preview if preview is not None else out if name in OF_ONE_VIDEO else None
    if single is not None and len(videos) > 1:
        raise ConfigError(f"{single}: holds one video, {len(videos)} are given", hint="name one video")
    counts = Counter(Path(video).stem for video in videos)
    twice = next((stem for stem, count in counts.items() if count > 1), None)
    if twice is not None and name in ("activitynet", "desed"):
        raise ConfigError(
            f"{out}: several videos are named {twice!r}, which {name} cannot tell apart",
            hint="predict them one by one",
        )
    return name


def _format_of(out: Path, format: str) -> str:
    if format != "auto":
        if format not in WRITERS:
            raise UnknownNameError("format", format, ["auto", *WRITERS])
        return format
    if out.suffix.lower() not in FORMAT_OF:
        raise ConfigError(
            f"{out}: --out must end in one of {', '.join(FORMAT_OF)}", hint="or name the format with --format"
        )
    return FORMAT_OF[out.suffix.lower()]


def _write(
    found: list[VideoEvents],
    failed: dict[str, str],
    out: Path | str | None,
    format_name: str,
    preview: Path | str | None,
) -> tuple[str, ...]:
    if out is not None:
        write_text(Path(out), WRITERS[format_name](found))
    if preview is not None:
        if not found:
            why = next(iter(failed.values()))
            raise AvelError(f"{preview}: the video cannot be read: {why}", hint="name another video")
        write_preview(found[0], Path(preview))
    return tuple(str(path) for path in (out, preview) if path is not None)
