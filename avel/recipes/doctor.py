"""`doctor`: checks what avel needs on this machine, and takes one clip through every stage."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import time
import traceback
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from avel.ahead import usable_cores
from avel.errors import AvelError
from avel.progress import note
from avel.stores import runs
from avel.stores.files import free_bytes, nearest_folder
from avel.text import first_line, plural, size

if TYPE_CHECKING:
    from torch import Tensor

CHECKED_LIBRARIES = (*runs.LIBRARIES, "pyarrow", "dask", "distributed", "safetensors", "matplotlib")
EXTRAS = {
    "scikit-learn": "avel[plots]",
    "obstore": "avel[s3]",
    "optuna": "avel[search]",
    "timm": "avel[timm]",
    "transformers": "avel[hf]",
}
"""Optional library -> the extra that installs it."""
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus", "vorbis")
NETWORK_SECONDS = 3.0
"""Time that a server has to answer."""
LEAST_DISK_GB, LEAST_MEMORY_GB = 5.0, 4.0
"""Enough for the demo and small datasets; AVE's store takes 14 GB."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked; `hint` says what to do where it failed.

    A check that is not `needed`, such as "published weights", may fail.
    """

    name: str
    passed: bool
    found: str
    hint: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """Results of all checks."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Returns True if all needed checks passed."""
        return all(check.passed or not check.needed for check in self.checks)

    def headline(self) -> str:
        """Returns the result in one line."""
        failed = [check.name for check in self.checks if not check.passed and check.needed]
        lacking = [check.name for check in self.checks if not check.passed and not check.needed]
        count = plural(len(self.checks), "check")
        if failed:
            return f"{len(failed)} of {count} failed: {', '.join(failed)}"
        return f"{count}, none failed" + (f"; without {', '.join(lacking)}" if lacking else "")

    def lines(self) -> list[str]:
        """Returns a line for each check, and below a failed one what to do."""
        width = max(len(check.name) for check in self.checks)
        shown: list[str] = []
        for check in self.checks:
            state = "ok  " if check.passed else "FAIL" if check.needed else "warn"
            shown.append(f"{state}  {check.name:<{width}}  {check.found}")
            if not check.passed:
                shown.append(f"      next: {check.hint}")
        return shown


def doctor(folder: Path | str = ".", *, self_test: bool = True) -> Diagnosis:
    """Checks versions, GPU, decoders, disk, memory, threads, weights; takes one clip through every stage.

    Args:
        folder: where output will be written, for the free space.
        self_test: whether to make the clip, which takes some seconds.
    """
    checks: dict[str, Callable[[], Check]] = {
        "versions": _versions,
        "extras": _extras,
        "torch": _torch,
        "decoders": _decoders,
        "disk": lambda: _disk(Path(folder)),
        "memory": _memory,
        "threads": _threads,
        "published weights": _weights,
    }
    if self_test:
        checks["one clip"] = _one_clip
    return Diagnosis(tuple(_run(name, check) for name, check in checks.items()))


def _run(name: str, check: Callable[[], Check]) -> Check:
    """Runs a check; one that raises has failed, for example because a library cannot be imported."""
    try:
        return check()
    except (AvelError, OSError, RuntimeError, ValueError, ImportError) as error:
        note(traceback.format_exc().rstrip(), level=2)
        return Check(name, False, _in_a_line(error), "avel -v doctor, and report what it says")


def _versions() -> Check:
    versions = {name: _version(name) for name in CHECKED_LIBRARIES}
    missing = ", ".join(name for name, version in versions.items() if not version)
    there = [f"{name} {version}" for name, version in versions.items() if version]
    hint = f"pip install --upgrade avel (missing: {missing})" if missing else ""
    return Check("versions", not missing, ", ".join([f"python {platform.python_version()}", *there]), hint)


def _extras() -> Check:
    versions = {name: _version(name) for name in EXTRAS}
    found = [
        f"{name} {version}" if version else f"no {name} (pip install '{EXTRAS[name]}')"
        for name, version in versions.items()
    ]
    return Check("extras", True, ", ".join(found))


def _version(library: str) -> str:
    """Returns the version of a library, "" where it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _torch() -> Check:
    """Checks that torch, torchvision and torchaudio import together; says which GPUs torch finds."""
    try:
        import torch

        for name in ("torchvision", "torchaudio"):
            import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        hint = "install the three in versions that go together: see the ranges in pyproject.toml"
        return Check("torch", False, _in_a_line(error), hint)
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return Check("torch", True, f"CPU; {built}, no GPU found")
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return Check("torch", True, f"CUDA {torch.version.cuda}: {names}")


def _decoders() -> Check:
    from av import codecs_available, library_versions

    found = [name for name in CODECS if name in codecs_available]
    missing = [name for name in CODECS if name not in found]
    version = ".".join(map(str, library_versions["libavcodec"]))
    needed = {"h264", "aac"} - set(found)
    text = f"libavcodec {version}: {', '.join(found)}" + (
        f"; without {', '.join(missing)}" if missing else ""
    )
    return Check("decoders", not needed, text, "pip install --force-reinstall av" if needed else "")


def _disk(folder: Path) -> Check:
    place = nearest_folder(folder)
    free = free_bytes(place)
    hint = f"free at least {LEAST_DISK_GB:g} GB, or write elsewhere; AVE's store takes 14 GB"
    writable = os.access(place, os.W_OK)
    passed = free >= LEAST_DISK_GB * 1e9 and writable
    found = f"{size(free)} free at {place}" + ("" if writable else ", not writable")
    return Check("disk", passed, found, "" if passed else hint)


def _memory() -> Check:
    from avel.memory import free_memory

    free = free_memory()
    passed = free >= LEAST_MEMORY_GB * 1e9
    hint = f"close other programs: {LEAST_MEMORY_GB:g} GB should be free; fewer --workers need less"
    return Check("memory", passed, f"{size(free)} free", "" if passed else hint)


def _threads() -> Check:
    import torch

    threads, cores = torch.get_num_threads(), usable_cores()
    found = f"{plural(threads, 'thread')} on {plural(cores, 'core')} that this process may use"
    return Check("threads", threads <= cores, found, f"--threads {cores}" if threads > cores else "")


def _weights() -> Check:
    """Checks that the published weights of the default CNNs are here, or can be downloaded."""
    from avel.config import resolve
    from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, PretrainConfig

    config = resolve(PretrainConfig, "pretrain")
    chosen = VISUAL_BACKBONES[config.visual.backbone.name], AUDIO_BACKBONES[config.audio.backbone.name]
    files = [next(iter(each.published.values())) for each in chosen]
    name = "published weights"
    missing = [each for each in files if not each.cached_at.is_file()]
    if not missing:
        return Check(name, True, f"{' and '.join(each.file_name for each in files)} are here", needed=False)
    unreachable = [each for each in missing if not _reachable(each.url)]
    names = " and ".join(each.file_name for each in unreachable or missing)
    if not unreachable:
        return Check(name, True, f"{names} will be downloaded when they are needed", needed=False)
    steps = [f"download {each.url} elsewhere and put it at {each.cached_at}" for each in unreachable]
    hint = "; ".join([*steps, "or choose other weights"])
    return Check(name, False, f"no {names}, and no network to download from", hint, needed=False)


def _reachable(url: str) -> bool:
    """Returns whether the server of a URL answers within `NETWORK_SECONDS`."""
    parts = urllib.parse.urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), NETWORK_SECONDS):
            return True
    except OSError:
        return False


def _one_clip() -> Check:
    """Takes a clip of two seconds through every stage, in a temporary folder."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="avel-doctor-") as folder:
        found = one_clip(Path(folder))
    return Check("one clip", True, f"{found} in {time.monotonic() - began:.1f} s")


def _in_a_line(error: Exception) -> str:
    """Returns the type of an error, and the first line of its message if it has one."""
    return ": ".join(dict.fromkeys((type(error).__name__, first_line(error))))


def one_clip(folder: Path) -> str:
    """Makes a clip of two segments, stages it, encodes it, runs a head on it; returns what was done.

    Raises:
        AvelError: a stage failed, or its output has the wrong shape or is not finite.
    """
    import torch

    from avel.config import resolve
    from avel.heads.config import TrainConfig
    from avel.heads.models.head import Widths, build_model
    from avel.pipeline.config import PretrainConfig
    from avel.pipeline.encoders.build import build_encoder

    frames, log_mel = _staged(folder)
    tiny = {"backbone": "tiny", "weights": "random"}
    options = {"visual": tiny, "audio": tiny, "crop_size": 32}
    encoder = build_encoder(resolve(PretrainConfig, "pretrain", options=options)).eval()
    model = build_model(TrainConfig(), Widths(encoder.width, encoder.width, 3), seed=0)
    with torch.inference_mode():
        f_a, f_v = encoder(frames[None], log_mel[None])
        logits = model.eval()(f_a, f_v).logits
    finite = bool(torch.isfinite(logits).all())
    if logits.shape != (1, 2, 3) or not finite:
        raise AvelError(f"scores have shape {tuple(logits.shape)} (expected: (1, 2, 3)), finite: {finite}")
    return "made, decoded, staged, encoded and classified"


def _staged(folder: Path) -> tuple[Tensor, Tensor]:
    """Stages a clip that is red, then blue, with a tone: frames (2, 3, 32, 32), log-mel (2, 96, 64)."""
    from fractions import Fraction

    import numpy as np
    import torch

    from avel.grid import Grid
    from avel.pipeline.media.log_mel import log_mel
    from avel.pipeline.media.reading import open_media
    from avel.recipes.composing.mp4 import write_mp4

    grid = Grid(segments=2, fps=8, size=32)
    colours = [(200, 0, 0) if number < 8 else (0, 0, 200) for number in range(16)]
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(grid.samples) / grid.sample_rate)
    pictures = (np.full((48, 64, 3), colour, np.uint8) for colour in colours)
    write_mp4(folder / "clip.mp4", pictures, Fraction(8), tone[None].astype(np.float32), grid.sample_rate)
    with open_media(folder / "clip.mp4", grid) as media:
        frames = np.concatenate(list(media.frames()))[4::8]
        samples = np.concatenate(list(media.samples()))
    if not (frames[0, ..., 0].mean() > 150 > 50 > frames[1, ..., 0].mean()):
        raise AvelError("the clip's colours came back in another order")
    if np.abs(samples).max() < 0.1:
        raise AvelError("the clip's tone came back silent")
    patches = log_mel(samples.reshape(2, -1))
    return torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(patches)
