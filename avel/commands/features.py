"""Commands from raw clips to features: stage, pretrain, cache, import, export, compare."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import avel
from avel.commands.group import (
    ANNOTATED,
    CACHE,
    ENCODER,
    NEW_RUN,
    PATH,
    SEGMENT_SECONDS,
    SEGMENTS,
    STORE,
    STORE_OR_CACHE,
    command,
)
from avel.console import DONE, SOME_FAILED, PathTo, path_of, show
from avel.errors import ConfigError
from avel.options import dataset_options, json_option, settings, with_options
from avel.pipeline.config import CacheConfig, ExtractConfig, PretrainConfig
from avel.pipeline.pretraining.presets import PRESETS
from avel.stores.datasets.sample import SPLITS
from avel.values import split_set

FEATURES = PathTo("dataset", "file", "cache", meant="a folder of features")
OVERWRITE_CACHE = click.option(
    "--overwrite", is_flag=True, help="Replace the cache that is there, or its features of the same name."
)


@command("avel extract AVE_Dataset ave.zarr", "avel extract videos/ clips.zarr --annotations events.csv")
@click.argument("dataset", type=PathTo("dataset"))
@click.argument("store", type=PathTo("store", made=True, text=True))
@dataset_options
@click.option("--workers", type=click.IntRange(1), help="Processes that decode.  [default: one per core]")
@click.option(
    "--scheduler",
    help="Address of a dask scheduler whose workers decode. They need DATASET and STORE under the same "
    "paths.  [default: none, processes of this machine decode]",
)
@click.option("--retry-failed", is_flag=True, help="Try again to stage the clips that failed before.")
@click.option(
    "--repair", is_flag=True, help="Verify every byte of STORE first, and stage damaged clips again."
)
@click.option("--overwrite", is_flag=True, help="Stage again all clips whose files can be read.")
@click.option(
    "--mixed-versions",
    is_flag=True,
    help="Stage clips although other versions of avel, PyAV or FFmpeg staged those of STORE.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done: clips, bytes, minutes.")
@settings(ExtractConfig, "extract")
@json_option
def extract(dataset: Path, store: str, as_json: bool, **options: Any) -> int:
    """Stage clips: frames, log-mel, waveform on one grid.

    Reads the videos of DATASET: AVE's folder, a dataset of another format, or any folder of videos. Writes to
    STORE, a folder or an s3:// URL. The same command resumes an interrupted one.
    """
    summary = avel.extract(dataset, store, **options)
    then = f"avel pretrain {path_of(store)} runs/avbt    (on a CPU: --preset small)"
    show(summary, as_json, next="the same command without --dry-run" if options["dry_run"] else then)
    return SOME_FAILED if (summary.failed or summary.damaged) and not options["dry_run"] else DONE


@command(
    "avel pretrain ave.zarr runs/avbt --epochs 100",
    "avel pretrain mine.h5 runs/avbt --audio-features clap --visual-features siglip",
)
@click.argument("store", type=STORE_OR_CACHE)
@click.argument("run", type=NEW_RUN)
@click.option(
    "--audio-features",
    help="Names of audio features in the feature cache STORE, joined by +.  [default: cnn_a, else f_a]",
)
@click.option("--visual-features", help="The same for visual features.  [default: cnn_v, else f_v]")
@settings(PretrainConfig, "pretrain", PRESETS)
@json_option
def pretrain(store: str, run: Path, as_json: bool, **options: Any) -> int:
    """Train AV-BT encoders without labels.

    Learns from the train split in STORE, and saves the encoders in RUN. STORE may be a feature cache: its
    vectors, of any encoders, then take the place of frozen CNNs. For several GPUs start it with torchrun:
    torchrun --nproc-per-node 4 -m avel pretrain STORE RUN. The paper, whose tables and equations are named
    below, is Ran et al. 2022.
    """
    summary = avel.pretrain(store, run, **options)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts this command once for each GPU
        cache = "avbt.h5" if Path(store).name == "features.h5" else "features.h5"
        then = f"avel cache-features {path_of(store)} {cache} --encoder {path_of(run)}"
        show(summary, as_json, next=then)
    return DONE


@command(
    "avel cache-features ave.zarr ave.h5 --encoder runs/avbt",
    "avel cache-features ave.zarr ave.h5 --visual-name vgg19 --visual-backbone vgg19 --keep-maps",
    name="cache-features",
)
@click.argument("store", type=STORE_OR_CACHE)
@click.argument("cache", type=PathTo("cache", made=True))
@click.option(
    "--encoder",
    type=ENCODER,
    help="Run of avel pretrain.  [default: none, the cache holds the backbones' own vectors]",
)
@OVERWRITE_CACHE
@click.option(
    "--scheduler", help="Address of a dask scheduler whose workers encode.  [default: none, encode here]"
)
@click.option(
    "--audio-name", help="Add the audio backbone's vectors to the CACHE that is there, under this name."
)
@click.option(
    "--visual-name",
    help="The same for the visual backbone; --keep-maps adds its maps as NAME.maps.",
)
@settings(CacheConfig, "cache-features")
@json_option
def cache_features(store: str, cache: Path, as_json: bool, **options: Any) -> int:
    """Compute the encoders' features of staged clips.

    Writes f_a, f_v, labels, splits and provenance of the clips in STORE to CACHE (HDF5). The same command
    resumes an interrupted one, and computes only clips that are new or have changed. STORE may be a feature
    cache with the vectors that the encoder reads: then only its Bi-LSTMs run, in seconds.
    """
    summary = avel.cache_features(store, cache, **options)
    show(summary, as_json, next=f"avel train-head {path_of(cache)} runs/tacma --head tacma --seeds 5")
    return SOME_FAILED if summary.failed else DONE


def features_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the options of features by video id, which it gets as `audio` and `visual`."""

    @functools.wraps(command)
    def call(**values: Any) -> int:
        from avel.stores.feature_align import GivenFeatures  # brings numpy and HDF5

        for modality in ("audio", "visual"):
            path, *others = (
                values.pop(f"{modality}{what}") for what in ("", "_name", "_key", "_window", "_hop")
            )
            values[modality] = None if path is None else GivenFeatures(path, *others)
            if path is None and any(other is not None for other in others):
                raise ConfigError(
                    f"--{modality}-name, -key, -window and -hop need --{modality}",
                    hint=f"--{modality} PATH",
                )
        return command(**values)

    added: list[Callable[[Any], Any]] = []
    for modality in ("audio", "visual"):
        added += [
            click.option(
                f"--{modality}",
                type=FEATURES,
                help=f"{modality.capitalize()} features by video id: a folder or pattern of files, or one "
                "file; one vector for each segment unless a hop or window is given.  [default: SOURCE's]",
            ),
            click.option(
                f"--{modality}-key", help="Name of the array in a file of several.  [default: the only one]"
            ),
            click.option(f"--{modality}-name", help="Add them under this name to the CACHE that is there."),
            click.option(
                f"--{modality}-window",
                type=click.FloatRange(0),
                help="Seconds that one vector covers, 0 for a frame.  [default: the hop]",
            ),
            click.option(
                f"--{modality}-hop",
                type=click.FloatRange(0),
                help="Seconds from one vector to the next.  [default: one vector a segment]",
            ),
        ]
    return with_options(command, call, added)


@command(
    "avel import-features mine.h5 --audio beats/ --visual 'clip/*_clip.npy' --annotations events.csv",
    "avel import-features mine.h5 --visual siglip/ --visual-name siglip",
    "avel import-features AVE_features/ ave.h5 --dataset AVE_Dataset",
    name="import-features",
)
@click.argument("source", type=FEATURES, nargs=-1)
@click.argument("cache", type=PathTo("cache", made=True))
@click.option(
    "--dataset",
    type=ANNOTATED,
    help="Folder of the annotations.  [default: that of --annotations, or of SOURCE]",
)
@dataset_options
@features_options
@SEGMENTS
@SEGMENT_SECONDS
@click.option(
    "--leave-out",
    is_flag=True,
    help="Go on without clips whose features are missing or cannot be used, and list them as missing.",
)
@click.option(
    "--maps-dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    help="Number format of the visual maps in the cache.",
)
@click.option(
    "--any-size", is_flag=True, help="Take vectors and maps of other sizes than the published ones."
)
@OVERWRITE_CACHE
@json_option
def import_features(source: tuple[Path, ...], cache: Path, as_json: bool, **options: Any) -> int:
    """Make a feature cache of any encoder's features.

    --audio and --visual name features by video id; SOURCE is the folder of the published AVE files, or these
    files themselves.
    """
    found = avel.import_features(source or None, cache, **options)
    show(found, as_json, next=f"avel train-head {path_of(cache)} runs/psp --head psp --seeds 5")
    return DONE


@command("avel export-features ave.h5 exported/", name="export-features")
@click.argument("cache", type=CACHE)
@click.argument("folder", type=PathTo("dataset", made=True))
@click.option(
    "--level",
    type=click.Choice(["cnn", "encoder"]),
    help="The CNNs' vectors, or f_a and f_v.  [default: cnn where the cache holds them]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float64", "float32"]),
    default="float64",
    help="Number format of the features; the published one is float64.",
)
@click.option("--overwrite", is_flag=True, help="Replace files of these names that are there.")
@json_option
def export_features(cache: Path, folder: Path, as_json: bool, **options: Any) -> int:
    """Write a cache as the files that published code reads.

    The files are those of AVEL (Tian et al. 2018) and PSP, with one row for each sample.
    """
    written = avel.export_features(cache, folder, **options)
    other_sizes = "" if written.published_sizes else " --any-size"
    then = f"avel import-features {path_of(folder)} back.h5 --dataset DATASET{other_sizes} reads them back"
    show(written, as_json, next=then)
    return DONE


@command(
    "avel export-annotations ave.zarr train.json --split train",
    "avel export-annotations ave.zarr test.tsv --split test",
    name="export-annotations",
)
@click.argument("store", type=STORE)
@click.argument("out", type=PATH)
@click.option(
    "--format",
    type=click.Choice(["auto", "activitynet", "desed"]),
    default="auto",
    help="Format of OUT; auto goes by its ending: .json is ActivityNet's JSON, .tsv DESED's table.",
)
@click.option("--split", type=click.Choice(SPLITS), help="Split to write.  [default: every split]")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@json_option
def export_annotations(store: str, out: Path, as_json: bool, **options: Any) -> int:
    """Write the events of staged clips as annotations."""
    then = f"avel inspect VIDEOS --annotations {path_of(out)} reads them back"
    show(avel.export_annotations(store, out, **options), as_json, next=then)
    return DONE


@command("avel diff mine.h5 theirs.h5", "avel diff mine.h5 --array f_v=siglip")
@click.argument("a", type=CACHE)
@click.argument("b", type=CACHE, required=False)
@click.option(
    "--array",
    "pairs",
    multiple=True,
    metavar="NAME=NAME",
    help="Compare this array of A with that of B, or of A itself.  [default: each with its namesake]",
)
@json_option
def diff(a: Path, b: Path | None, pairs: tuple[str, ...], as_json: bool) -> int:
    """Compare two feature caches clip by clip.

    Prints cosines, largest differences, and what is in one of them only.
    """
    found = avel.diff(a, b, dict(split_set(each, "--array", "f_v=clip") for each in pairs))
    other = path_of(a if b is None else b)
    show(found, as_json, next="" if found.same else f"avel inspect {other} --json tells how it was made")
    return DONE
