"""Compares `avel cache-features` with the forward pass of its backbones alone: clips/s of both, in turns.

    python benchmarks/cache.py --dtypes float32,bfloat16
    python benchmarks/cache.py --visual-backbone mobilenet_v2 --audio-backbone yamnet
    python benchmarks/cache.py --visual-backbone timm:vit_small_patch16_224 --audio-backbone cnn14
    python benchmarks/cache.py --visual-backbone hf:clip --audio-backbone hf:wav2vec2 --threads 1

Backbones are any that avel has, with random weights; hf:clip (the vision tower of ViT-B/32), hf:ast and
hf:wav2vec2 (both base) are made of transformers' own settings, and nothing is downloaded.

plain         the forward pass of the CNNs as they are written, on inputs that lie in memory, cropped and in
              floats; the batch, threads and dtype of the cache
folded        the same with batch norms folded into the convolutions, as avel runs them
cache         the whole call but for loading the encoder: reading, decoding, cropping, CNNs, writing
CNNs / cache  fraction of the call's seconds that its CNNs take, without the forward pass of one segment that
              measures the memory of a batch. It does not change with the speed of the machine

With two dtypes their features are compared, too. Each row is of one clock: the wall's, or the processor's
over all threads. On a machine that others use, read the latter and give `--threads 1`, because threads that
wait for each other count as busy. A call takes a tenth of a second however few its clips are: give it clips
for ten seconds or more.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avel.config import digest, resolve
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.encode import PartEncoder, Work
from avel.pipeline.caching.key import recipe
from avel.pipeline.config import CacheConfig, ExtractConfig
from avel.pipeline.encoders.encoder import Encoder, unit
from avel.pipeline.staging.plan import stored_settings
from avel.progress import set_verbosity
from avel.stores.clip_layout import StoreAttributes
from avel.stores.clip_writer import ClipWriter, prepare_store, write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import make_dataset
from avel.stores.datasets.sample import Video
from avel.stores.diff import diff
from avel.stores.feature_parts import Parts
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter
from avel.text import table

CLOCKS = ("wall", "cpu")
Times = NDArray[np.float64]
"""A number of each clock."""


def now() -> Times:
    """Returns the seconds of each clock."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Measures, prints a table, and JSON where asked."""
    options = _options()
    set_verbosity(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        options.visual_backbone, options.audio_backbone = (
            with_model(name, Path(folder)) for name in (options.visual_backbone, options.audio_backbone)
        )
        store = options.store or make_store(Path(folder) / "clips.zarr", options.clips, options.segments)
        dtypes = options.dtypes.split(",")
        results = {dtype: _measure(store, Path(folder), dtype, options) for dtype in dtypes}
        compared = _compare(Path(folder), dtypes) if len(dtypes) == 2 else {}
    if options.json:
        print(json.dumps({"results": results, "compared": compared, "threads": torch.get_num_threads()}))
        return
    header = (
        "dtype",
        "clock",
        "plain clips/s",
        "folded clips/s",
        "cache clips/s",
        "to plain",
        "lowest to highest",
        "to folded",
        "lowest to highest",
        "CNNs / cache",
        "lowest to highest",
        "reading alone clips/s",
        "loading s",
    )
    rows = [
        (dtype, clock, *map(_shown, found[clock].values()))
        for dtype, found in results.items()
        for clock in CLOCKS
    ]
    print("\n".join(table(header, rows)))
    for name, found in compared.items():
        print(f"{name}: {found}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="clip store; by default one is made up")
    parser.add_argument("--clips", type=int, default=48, help="clips of the store that is made up")
    parser.add_argument("--segments", type=int, default=10, help="segments of such a clip")
    parser.add_argument("--rounds", type=int, default=3, help="turns of all three; medians are shown")
    parser.add_argument("--visual-backbone", default="resnet50")
    parser.add_argument("--audio-backbone", default="vggish")
    parser.add_argument("--dtypes", default="float32", help="float32, bfloat16 or both with a comma")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its default")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def with_model(backbone: str, folder: Path) -> str:
    """Returns a backbone's name; for hf:clip, hf:ast and hf:wav2vec2 that of a folder, made here."""
    if backbone not in ("hf:clip", "hf:ast", "hf:wav2vec2"):
        return backbone
    import transformers as hf

    config, processor = {
        "hf:clip": (hf.CLIPConfig, hf.CLIPImageProcessor),
        "hf:ast": (hf.ASTConfig, hf.ASTFeatureExtractor),
        "hf:wav2vec2": (hf.Wav2Vec2Config, hf.Wav2Vec2FeatureExtractor),
    }[backbone]
    path = folder / backbone.removeprefix("hf:")
    config().save_pretrained(path)
    processor().save_pretrained(path)
    return f"hf:{path}"


def make_store(path: Path, clips: int, segments: int = 10) -> Path:
    """Writes a store of made-up clips whose JPEG files are about as large as those of real ones (20 KB)."""
    config, location = ExtractConfig(segments=segments), locate(path)
    names = tuple(f"clip{number:05d}" for number in range(clips))
    attributes = StoreAttributes(
        config.grid(), stored_settings(config), digest(config), "jpeg", clips, config.waveform
    )
    prepare_store(location, attributes, names)
    write_dataset(location, make_dataset("made-up", path, (), tuple(Video(name, "") for name in names)))
    writer, manifest = ClipWriter(location, attributes.digest), ManifestWriter(location)
    random = np.random.default_rng(0)
    files = list(_jpegs(random, config))
    for row in range(clips):
        noise = random.integers(-9999, 9999, config.grid().samples)
        writer.write("waveform", row, 0, noise.astype(np.int16))
        patches = random.normal(-3, 2, (config.grid().segments, 96, 64))
        writer.write("log_mel", row, 0, patches.astype(np.float32))
        writer.write("frames", row, 0, [files[place] for place in random.permutation(len(files))])
    manifest.append(
        Entry(name, row, "staged", source_sha256=name, settings=attributes.digest)
        for row, name in enumerate(names)
    )
    return path


def _jpegs(random: np.random.Generator, config: ExtractConfig) -> Iterator[bytes]:
    for _ in range(config.grid().frames):
        cells = random.integers(0, 255, (16, 16, 3), np.uint8)
        smooth = np.asarray(
            Image.fromarray(cells).resize((config.size, config.size), Image.Resampling.BICUBIC)
        )
        grain = random.normal(0, 4, smooth.shape)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
        yield buffer.getvalue()


def _measure(store: Path, folder: Path, dtype: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns by clock the medians of the turns; spreads are the lowest and the highest."""
    chosen = {
        "visual_backbone": options.visual_backbone,
        "audio_backbone": options.audio_backbone,
        "visual_weights": "random",
        "audio_weights": "random",
        "dtype": dtype,
        "batch_size": options.batch_size,
        "device": options.device,
    }
    config = resolve(CacheConfig, "cache-features", options=chosen)
    clips = ClipStore.open(store)
    asked = recipe(clips, None, config)
    plain, folded, whole, within = [], [], [], list[Times]()
    work = Work(str(store), None, config, asked, Parts(folder))
    encoder = PartEncoder(work, options.device)  # imports, and the first use of the device
    loading: list[Times] = []

    def load(*given: Any) -> PartEncoder:
        began = now()
        loaded = PartEncoder(*given)
        loading.append(now() - began)
        return loaded

    run = Encoder.run

    def timed(self: Encoder, cnn: Any, inputs: Any, method: str = "forward") -> Any:
        began = now()
        found = run(self, cnn, inputs, method)
        if len(inputs) > 1:
            within[-1] += now() - began
        return found

    batch = encoder.read((0, clips.staged[: options.batch_size]))
    for turn in range(options.rounds):
        plain.append(_bare(encoder, batch, len(clips.staged), folded=False))
        folded.append(_bare(encoder, batch, len(clips.staged), folded=True))
        within.append(np.zeros(len(CLOCKS)))
        with (
            patch("avel.pipeline.caching.workers.PartEncoder", load),
            patch.object(Encoder, "run", timed),
        ):
            began = now()
            cache_features(store, folder / f"{dtype}.h5", config, overwrite=turn > 0)
            whole.append(len(clips.staged) / (now() - began - loading[turn]))
        within[turn] *= whole[turn] / len(clips.staged)  # seconds -> fraction of the call's
    reading = _reading(encoder, clips, options.batch_size)
    return {
        clock: _of_clock(*(np.array(turns)[:, place] for turns in (plain, folded, whole, within)))
        | {"reading": float(reading[place]), "loading_seconds": float(np.median(loading, 0)[place])}
        for place, clock in enumerate(CLOCKS)
    }


def _of_clock(plain: Times, folded: Times, whole: Times, within: Times) -> dict[str, Any]:
    to_plain, to_folded = whole / plain, whole / folded
    return {
        "plain": float(np.median(plain)),
        "folded": float(np.median(folded)),
        "cache": float(np.median(whole)),
        "to_plain": float(np.median(to_plain)),
        "to_plain_spread": [float(to_plain.min()), float(to_plain.max())],
        "to_folded": float(np.median(to_folded)),
        "to_folded_spread": [float(to_folded.min()), float(to_folded.max())],
        "within": float(np.median(within)),
        "within_spread": [float(within.min()), float(within.max())],
    }


def _shown(value: float | list[float]) -> str:
    return " to ".join(f"{number:.3f}" for number in (value if isinstance(value, list) else [value]))


@torch.inference_mode()
def _bare(encoder: PartEncoder, batch: Any, clips: int, *, folded: bool) -> Times:
    """Returns the clips per second of the CNNs alone on one resident batch, over and over."""
    cnns = encoder.encoder
    size, device = len(batch.video_ids), encoder.device
    given = encoder.prepared(batch.inputs)
    frames, audio = unit(given["visual"]), given["audio"].flatten(0, 1)
    half = encoder.work.config.dtype == "bfloat16"

    def forward() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            if folded:
                cnns.run("visual", frames)
                cnns.run("audio", audio)
            else:
                cnns.get_submodule("visual")(frames)
                cnns.get_submodule("audio")(audio)
        if device.type == "cuda":
            torch.cuda.synchronize()

    forward()
    times = max(1, clips // size)
    began = now()
    for _ in range(times):
        forward()
    clips_per_second: Times = times * size / (now() - began)
    return clips_per_second


def _reading(encoder: PartEncoder, clips: ClipStore, size: int) -> Times:
    began = now()
    for start in range(0, len(clips.staged), size):
        encoder.read((0, clips.staged[start : start + size]))
    clips_per_second: Times = len(clips.staged) / (now() - began)
    return clips_per_second


def _compare(folder: Path, dtypes: list[str]) -> dict[str, dict[str, float]]:
    """Compares the second dtype's features with the first's."""
    first, second = (folder / f"{dtype}.h5" for dtype in dtypes)
    found = diff(first, second)
    return {
        name: {
            "mean_cosine": array.mean_cosine,
            "lowest_cosine": array.lowest_cosine,
            "largest_difference": array.largest_difference,
            "scale": array.scale,
        }
        for name, array in found.arrays.items()
    }


if __name__ == "__main__":
    main()
