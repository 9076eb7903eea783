"""Command line: parse, call, print. Results go to stdout, progress and notes to stderr.

Exit codes: 0 all done, 1 error, 2 wrong usage, 3 finished but some clips failed, 130 interrupted.
"""

import functools
import gc
import operator
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

import avel
from avel.ahead import limit_threads
from avel.config import Range, resolve, split_set
from avel.console import (
    DONE,
    ERROR,
    SOME_FAILED,
    Command,
    Context,
    PathTo,
    dataset_options,
    json_option,
    loose_settings,
    path_of,
    run,
    settings,
    show,
    show_rows,
    stage_settings,
)
from avel.errors import ConfigError
from avel.heads.config import TaskChoice, TrainConfig
from avel.heads.presets import PRESETS as HEAD_PRESETS
from avel.pipeline.config import CacheConfig, ExtractConfig, PretrainConfig
from avel.pipeline.pretraining.presets import PRESETS
from avel.progress import set_verbosity
from avel.recipes.reproducing.tables import TABLES
from avel.stores.datasets.sample import SPLITS
from avel.text import plural

PATH = click.Path(path_type=Path)
STORE, CACHE, RUN = PathTo("store", text=True), PathTo("cache"), PathTo("run")
STORE_OR_CACHE = PathTo("store", "cache", text=True)
NEW_RUN = PathTo("run", made=True)
ENCODER, ANNOTATED = PathTo("run", "file", "dataset"), PathTo("dataset", meant="a folder of annotations")
FEATURES = PathTo("dataset", "file", "cache", meant="a folder of features")
SPLIT = click.Choice(["val", "test"])
IDS = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""Context of commands that take ids of clips, which are no options although they may begin with a dash."""
DECODER = click.option(
    "--decoder",
    type=click.Choice(["argmax", "event", "threshold"]),
    help="argmax: the likeliest class of each segment; event: one class a sample, or background; threshold: "
    "every class of at least 0.5.  [default: argmax; threshold if a segment has several labels]",
)
ONSET_TOLERANCE = click.option(
    "--onset-tolerance",
    type=click.FloatRange(0),
    default=1,
    help="Segments by which the onset of a predicted event may be early or late.",
)
OFFSET_TOLERANCE = click.option(
    "--offset-tolerance",
    type=click.FloatRange(0),
    default=1,
    help="Segments by which its offset may be early or late.",
)
SEGMENTS = click.option(
    "--segments",
    type=click.IntRange(1),
    help="Segments T of a clip.  [default: 10, or those of the longest clip that is annotated]",
)
SEGMENT_SECONDS = click.option(
    "--segment-seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Length of one segment in seconds.",
)
ALL = click.option("--all", "in_full", is_flag=True, help="Print every figure.")
ALL_LINES = operator.methodcaller("all_lines")
"""Function that returns what is printed with --all."""
AFTER_INSPECTION = {
    "dataset": "avel extract {} clips.zarr",
    "store": "avel pretrain {} runs/avbt, or avel preview {} ID sheet.png",
    "cache": "avel train-head {} runs/tacma --head tacma --seeds 5",
    "run": "avel evaluate {} --all, for a run of heads; --json prints every setting",
}
"""Kind of a path -> command that comes next, if what lies there is complete."""


def after_training(run: Path | str) -> str:
    """Returns the command that comes next after a run of heads."""
    return f"avel report {path_of(run)} --out report"


class InOrder(click.Group):
    """Lists its commands in the order in which one uses them, as they stand in this file."""

    command_class = Command
    context_class = Context

    def list_commands(self, context: click.Context) -> list[str]:
        """Returns the names in order of definition."""
        return list(self.commands)


@click.group(
    cls=InOrder,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
        "show_default": True,
    },
)
@click.version_option(package_name="avel", prog_name="avel")
@click.option("-q", "--quiet", is_flag=True, help="Print errors and results only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the traceback of an error.")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads that compute and read, the cores by default."
)
def cli(quiet: bool, verbose: bool, threads: int | None) -> None:
    """Audio-visual event localization: clips -> staging -> AV-BT encoders -> features -> fusion heads.

    --quiet, --verbose and --threads may stand before or after COMMAND.
    """
    set_verbosity(0 if quiet else 2 if verbose else 1)
    if threads is not None:
        limit_threads(threads)


def in_lines(example: str) -> str:
    """Returns an example indented, and broken before options where it would pass 80 columns."""
    lines = [""]
    for part in re.split(r" (?=--)", example):
        if len(lines[-1]) + len(part) > 70:
            lines.append("")
        lines[-1] += f" {part}"
    return "  " + " \\\n     ".join(lines).lstrip()


def command(*examples: str, **more: Any) -> Callable[[Callable[..., int]], click.Command]:
    """Adds a command to `cli`; its help ends with the examples."""
    return cli.command(epilog="\b\nExample:\n" + "\n".join(map(in_lines, examples)), **more)


@command("avel extract AVE_Dataset ave.zarr", "avel extract videos/ clips.zarr --annotations events.csv")
@click.argument("dataset", type=PathTo("dataset"))
@click.argument("store", type=PathTo("store", made=True, text=True))
@dataset_options
@click.option("--workers", type=click.IntRange(1), help="Processes that decode.  [default: the cores]")
@click.option(
    "--scheduler",
    help="Address of a dask scheduler whose workers decode. They need DATASET and STORE under the same "
    "paths.",
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

    Reads the videos of DATASET, a folder in AVE's layout, of another format, or any folder of videos. Writes
    to STORE, a folder or an s3:// URL. The same command resumes an interrupted one.
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
    vectors, of any encoders, then stand for frozen CNNs. For several GPUs start it with torchrun: torchrun
    --nproc-per-node 4 -m avel pretrain STORE RUN.
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
    help="Run of avel pretrain; without it the cache holds the backbones' own vectors.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace the cache that is there, or its features of the same name."
)
@click.option("--scheduler", help="Address of a running dask scheduler, whose workers encode the clips.")
@click.option(
    "--audio-name", help="Add the audio backbone's vectors to the CACHE that is there, under this name."
)
@click.option(
    "--visual-name",
    help="The same for the visual backbone; --keep-maps adds its maps as NAME.maps.",
)
@click.option(
    "--cnn-from",
    type=CACHE,
    help="Cache with CNN vectors of the same CNNs (--keep-cnn): only the Bi-LSTMs run, in seconds.",
)
@settings(CacheConfig, "cache-features")
@json_option
def cache_features(store: str, cache: Path, as_json: bool, **options: Any) -> int:
    """Compute the encoders' features of staged clips.

    Writes f_a, f_v, labels, splits and provenance of the clips in STORE to CACHE (HDF5). The same command
    resumes an interrupted one, and computes only clips that are new or have changed.
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
                    f"--{modality}-name, -key, -window or -hop without --{modality}",
                    hint=f"--{modality} PATH",
                )
        return command(**values)

    for modality in ("visual", "audio"):
        seconds = click.FloatRange(0)
        for add in (
            click.option(f"--{modality}-hop", type=seconds, help="Seconds from one of them to the next."),
            click.option(
                f"--{modality}-window",
                type=seconds,
                help="Seconds that one of them covers, 0 for a frame.  [default: the hop]",
            ),
            click.option(f"--{modality}-name", help="Add them under this name to the CACHE that is there."),
            click.option(f"--{modality}-key", help="Name of the array, where a file holds several."),
            click.option(
                f"--{modality}",
                type=FEATURES,
                help=f"{modality.capitalize()} features by video id: a folder or pattern of files, or one "
                "file; a vector a segment unless a hop or window is given.",
            ),
        ):
            call = add(call)
    return call


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
@click.option("--any-size", is_flag=True, help="Take other widths and grids than the published files have.")
@click.option(
    "--overwrite", is_flag=True, help="Replace the cache that is there, or its features of the same name."
)
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

    They are those that the code of AVEL and PSP reads, one row for each sample.
    """
    then = f"avel import-features {path_of(folder)} back.h5 --dataset DATASET reads them back"
    show(avel.export_features(cache, folder, **options), as_json, next=then)
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
@click.option("--split", type=click.Choice(SPLITS), help="Write the samples of this split only.")
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
    help="Compare this array of A with that of B, or of A itself.  [default: those of one name]",
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


@command("avel train-head ave.h5 runs/tacma --head tacma --seeds 5", name="train-head")
@click.argument("cache", type=CACHE)
@click.argument("run", type=NEW_RUN)
@click.option("--overwrite", is_flag=True, help="Train anew, in the place of the run that is there.")
@settings(TrainConfig, "train-head", HEAD_PRESETS)
@json_option
def train_head(cache: Path, run: Path, as_json: bool, **options: Any) -> int:
    """Train a fusion head, once for each seed.

    Learns from the features in CACHE; RUN holds each trial at its best validation epoch.
    """
    config: TrainConfig = options.pop("config")
    config = replace(config, negatives=_negatives(config.negatives, cache))
    show(avel.train_head(cache, run, config, **options), as_json, next=after_training(run))
    return DONE


def _negatives(source: str, cache: Path) -> str:
    """Returns the cache of clips without events, made of a folder or a store where need be."""
    return str(avel.background_cache(source, cache)) if source else ""


@command("avel heads", "avel heads psp")
@click.argument("name", required=False)
@json_option
def heads(name: str | None, as_json: bool) -> int:
    """List the fusion heads, or the settings of one.

    With NAME it prints that head's settings with their types and defaults.
    """
    from avel.heads.catalog import describe_head, head_lines, list_heads, setting_lines

    if name is None:
        found = list_heads()
        show(found, as_json, head_lines, headline=plural(len(found), "head"), next="avel heads NAME")
    else:
        described = describe_head(name)
        last = f"{described.head.name}: {plural(len(described.settings), 'setting')}"
        then = f"avel train-head CACHE runs/{described.head.name} --head {path_of(name)} --set KEY=VALUE"
        show(described, as_json, setting_lines, headline=last, next=then)
    return DONE


@command(
    "avel sweep ave.h5 runs/theta --set theta=0,0.01,0.03,0.06 --seeds 5",
    "avel sweep ave.h5 runs/search --set lr=log:1e-4..1e-2 --set d_e=128,256 --trials 40 --seeds 5",
    "avel sweep ave.h5 runs/folds --set weight_decay=0,1e-4,1e-3 --folds 5 --seeds 3",
)
@click.argument("cache", type=CACHE)
@click.argument("run", type=PathTo("run", "runs", made=True))
@click.option("--overwrite", is_flag=True, help="Train anew, in the place of the run that is there.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Search with so many trials, chosen on validation; the best is trained with all seeds. Needs "
    "optuna.",
)
@click.option(
    "--folds",
    type=click.IntRange(3),
    help="Evaluate by cross-validation over train and val in so many folds; the best is trained with all "
    "seeds.",
)
@click.option("--groups", type=PATH, help="With --folds: CSV of video_id,group; a group stays in one fold.")
@settings(TrainConfig, "train-head", HEAD_PRESETS, vary=True)
@json_option
def sweep(
    cache: Path,
    run: Path,
    trials: int | None,
    folds: int | None,
    groups: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Train a head with many settings, or search them.

    Trains every combination: --set takes several values of a setting, separated by commas. With --trials it
    also takes ranges: LOW..HIGH, or log:LOW..HIGH on a logarithmic scale.
    """
    if trials is not None and folds is not None:
        raise ConfigError("--trials with --folds", hint="give one of them")
    if groups is not None and folds is None:
        raise ConfigError("--groups without --folds", hint="--folds 5")
    if (trials is not None or folds is not None) and options.pop("overwrite"):
        raise ConfigError("--overwrite with --trials or --folds", hint="name another folder")
    if "negatives" in options:
        options["negatives"] = _negatives(options["negatives"], cache)
    if trials is not None:
        searched = avel.search(cache, run, trials=trials, **options)
        show(searched, as_json, next=after_training(searched.run))
        return DONE
    for name, values in options["settings"].items():
        if isinstance(values, Range):
            raise ConfigError(f"--set {name}={values} is a range", hint="--trials N searches it")
    if folds is not None:
        validated = avel.cross_validate(cache, run, folds=folds, groups=groups, **options)
        show(validated, as_json, next=after_training(validated.run))
        return DONE
    then = after_training(run)
    if swept := next(iter(options["settings"]), ""):  # "theta", or its place in a file, "tacma.theta"
        then = f"avel plot {path_of(run)} sweep --setting {swept.rpartition('.')[2]} --out sweep.pdf"
    show(avel.sweep(cache, run, **options), as_json, next=then)
    return DONE


@command(
    "avel leaderboard ave.h5 board/ --heads all --seeds 5",
    "avel leaderboard ave.h5 weak/ --heads psp,cmbs --supervision weak --against psp",
)
@click.argument("cache", type=CACHE)
@click.argument("out", type=PathTo("runs", made=True))
@click.option("--heads", default="all", help="all, or names separated by commas.")
@click.option("--seeds", type=click.IntRange(1), default=5, help="Trials of each head.")
@click.option(
    "--supervision",
    type=click.Choice(["full", "weak"]),
    default="full",
    help="Learn from the label of every segment, or from the video's event alone.",
)
@click.option("--against", help="Head to compare all with.  [default: the best on validation]")
@click.option(
    "--negatives",
    default="",
    show_default=False,
    help="Clips without events to learn from too: a folder of videos, a store or a cache.  [default: none]",
)
@loose_settings("train-head", HEAD_PRESETS)
@json_option
def leaderboard(
    cache: Path,
    out: Path,
    heads: str,
    negatives: str,
    as_json: bool,
    settings: dict[str, Any],
    **options: Any,
) -> int:
    """Train many heads on one cache and compare them.

    Each head is trained with its own defaults. Prints a table; table and page are written to OUT after every
    head. --set gives a setting to all heads, --set NAME.KEY=VALUE to one. Heads that CACHE does not fit are
    left out, with the reason. The same command resumes an interrupted one.
    """
    names = heads if heads == "all" else [name.strip() for name in heads.split(",") if name.strip()]
    if negatives:
        settings = settings | {"negatives": _negatives(negatives, cache)}
    found = avel.leaderboard(cache, out, heads=names, settings=settings, **options)
    show(found, as_json, next=f"open {path_of(found.page)} in a browser")
    return DONE


@command(
    "avel reproduce table2 ave.zarr reproduced/ --seeds 3",
    "avel reproduce table4 small.zarr reproduced/ --preset small --set train-head.lr=1e-3",
)
@click.argument("table", type=click.Choice(list(TABLES)))
@click.argument("store", type=STORE)
@click.argument("out", type=PathTo("runs", made=True))
@click.option(
    "--seeds", type=click.IntRange(1), default=3, help="Repetitions of everything, encoders included."
)
@stage_settings(
    {
        "pretraining": ("pretrain", PretrainConfig),
        "caching": ("cache-features", CacheConfig),
        "heads": ("train-head", None),
    },
    {"pretrain": PRESETS, "train-head": HEAD_PRESETS},
)
@json_option
def reproduce(table: str, store: str, out: Path, as_json: bool, **options: Any) -> int:
    """Measure a table of the paper on your clips.

    Trains all that TABLE compares on the clips of STORE, and prints the paper's figures beside. All files go
    to OUT, where the tables use the same encoders and features. The same command resumes an interrupted one.
    """
    found = avel.reproduce(table, store, out, **options)
    rest = " ".join(name for name in TABLES if name != table)
    show(found, as_json, next=f"avel reproduce TABLE {path_of(store)} {path_of(out)}, with one of {rest}")
    return DONE


@command("avel runs runs/", "avel runs runs/ --against runs/mlp")
@click.argument("folder", type=PathTo("runs", "run", "dataset"))
@click.option("--against", type=RUN, help="Run to compare all with.  [default: the best on validation]")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV on stdout.")
@json_option
def runs(folder: Path, against: Path | None, as_csv: bool, as_json: bool) -> int:
    """List the runs in a folder with their accuracies.

    Takes all runs below FOLDER. Accuracies are percent of segments: test at the best validation epoch, with
    its standard deviation over seeds, F1 over events, the validation accuracy, test at the best test epoch,
    test on samples that hold background. Below are paired differences with 95 % intervals. --json and --csv
    print every column.
    """
    from avel.heads.evaluation.runs import best_line, run_headline, run_table

    found = avel.list_runs(folder, against=against)
    if as_csv:
        show_rows(found)
        return DONE
    best = best_line(found)
    then = after_training(folder / best.run) if best else "avel train-head CACHE RUN"
    show(found, as_json, run_table, headline=run_headline(found), next=then)
    return DONE


@command(
    "avel evaluate runs/tacma --split val --json",
    "avel evaluate runs/tacma --decoder event",
    "avel evaluate psp.pt --cache ave.h5 --set head=psp",
)
@click.argument("run", type=PathTo("run", "file"))
@click.option("--split", type=SPLIT, default="test", help="Split to evaluate.")
@click.option(
    "--cache",
    type=CACHE,
    help="Features on which to evaluate RUN, which is then a file of weights; --set head=NAME names its "
    "head.",
)
@loose_settings("train-head")
@DECODER
@ONSET_TOLERANCE
@OFFSET_TOLERANCE
@ALL
@json_option
def evaluate(
    run: Path, cache: Path | None, settings: dict[str, Any], in_full: bool, as_json: bool, **options: Any
) -> int:
    """Print what a run scores on a split.

    Mean and standard deviation over the seeds of RUN, beside trivial baselines: segment accuracy; where
    segments may have several labels, the F1 of segments and of events. With --cache RUN is a file of weights,
    which are evaluated as they are.
    """
    if cache is not None:
        config = resolve(TrainConfig, "train-head", options=settings)
        found, then = avel.evaluate_checkpoint(run, cache, config, **options), ""
    elif settings:
        raise ConfigError(f"--set {next(iter(settings))} without --cache", hint="a run has its settings")
    else:
        found = avel.evaluate(run, **options)
        then = after_training(run) + ("" if in_full else ", or --all for every figure")
    show(found, as_json, ALL_LINES if in_full else None, next=then)
    return DONE


@command(
    "avel score labels.npy --dataset AVE_Dataset",
    "avel score seed0.parquet seed1.parquet --dataset AVE_Dataset --decoder event",
)
@click.argument("predictions", type=PathTo("file"), nargs=-1, required=True)
@click.option("--dataset", type=ANNOTATED, required=True, help="Folder of the annotations.")
@click.option("--split", type=SPLIT, default="test", help="Split to evaluate.")
@click.option(
    "--task",
    type=click.Choice(get_args(TaskChoice)),
    default="auto",
    help="One label a segment, or any number in audio and visual each; auto: as the events say.",
)
@DECODER
@ONSET_TOLERANCE
@OFFSET_TOLERANCE
@SEGMENTS
@SEGMENT_SECONDS
@dataset_options
@ALL
@json_option
def score(predictions: tuple[Path, ...], dataset: Path, in_full: bool, as_json: bool, **options: Any) -> int:
    """Evaluate the predictions of any program.

    Computes the metrics of avel evaluate. Several files are several seeds.

    \b
    .npy          (rows, T) class numbers or (rows, T, K) scores; rows are
                  those of the split or of the whole dataset, in annotation
                  order; background is the last class
    CSV, Parquet  a row a segment: sample or video_id, segment (from 0), and
                  prediction (name or number), probabilities (a list,
                  Parquet), or a column for each class
    CSV, Parquet  a row an event: video_id, category, onset_seconds,
                  offset_seconds, and modality (audio, visual, or empty for
                  both); the rest is background

    Where a segment may have several labels, K scores are those of the classes, first in audio, then in
    visual; in .npy also (rows, T, 2, classes). Labels are 0 and 1. A column is named "Dog (audio)".
    """
    found = avel.score(predictions, dataset, **options)
    then = "" if in_full else "--all prints every figure, --json the same for scripts"
    show(found, as_json, ALL_LINES if in_full else None, next=then)
    return DONE


@command("avel compare runs/tacma runs/mlp")
@click.argument("a", type=RUN)
@click.argument("b", type=RUN)
@click.option("--split", type=SPLIT, default="test", help="Split to compare on.")
@DECODER
@click.option(
    "--settings-a",
    help="Settings of a sweep A, as avel runs names them.  [default: the best on validation]",
)
@click.option("--settings-b", help="The same of B; A and B may be one sweep.")
@json_option
def compare(a: Path, b: Path, as_json: bool, **options: Any) -> int:
    """Compare two runs clip by clip.

    Prints the paired differences between A and B, each with its 95 % interval from a bootstrap over videos
    and seeds, how many segments each labels right, and the clips where they differ most. If an interval
    contains 0, these clips and seeds do not tell which run is better.
    """
    then = f"avel report {path_of(a)} {path_of(b)} --out report"
    show(avel.compare(a, b, **options), as_json, next=then)
    return DONE


@command("avel inspect ave.zarr --verify", "avel inspect videos/ --annotations events.csv")
@click.argument("path")
@click.option("--verify", is_flag=True, help="Read everything, and compare every checksum.")
@dataset_options
@json_option
def inspect(path: str, as_json: bool, **options: Any) -> int:
    """Print the contents of a dataset, store, cache or run.

    Also says whether PATH is complete; the exit code is 1 if not.
    """
    found = avel.inspect(path, **options)
    show(found, as_json, next=found.mend or AFTER_INSPECTION[found.kind].replace("{}", path_of(path)))
    return DONE if found.whole else ERROR


@command("avel pack ave.zarr")
@click.argument("store", type=STORE)
@click.option(
    "--clips", type=click.IntRange(1), help="Clips to a shard.  [default: 64, or those of STORE's shards]"
)
@json_option
def pack(store: str, as_json: bool, **options: Any) -> int:
    """Move staged clips into shards: many clips to a file.

    Everything reads STORE as before. Clips that are staged later lie in files of their own until the next
    call. The same command resumes an interrupted one.
    """
    summary = avel.pack(store, **options)
    show(summary, as_json, next=f"avel inspect {path_of(store)} --verify" if summary.damaged else "")
    return SOME_FAILED if summary.damaged else DONE


@command("avel preview ave.zarr -0DuwSO3J74 sheet.png", context_settings=IDS)
@click.argument("store", type=STORE)
@click.argument("video_id", metavar="ID")
@click.argument("out", type=PATH)
def preview(store: str, video_id: str, out: Path) -> int:
    """Draw a staged clip as a contact sheet.

    Writes ten frames of the clip ID over ten log-mel patches, with its labels, to OUT.
    """
    drawn = avel.preview(store, video_id, out)
    show(None, False, headline=f"{drawn}: frames and log-mel of {video_id}", next=f"open {path_of(drawn)}")
    return DONE


@command("avel report runs/mlp runs/tacma --out report")
@click.argument("runs", type=RUN, nargs=-1, required=True)
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="Folder of the page: a new one, or that of an older report, which is replaced.",
)
@click.option("--store", help="Clip store with frames and sound.  [default: the one the cache names]")
@click.option("--copy-videos", is_flag=True, help="Copy the videos beside the page instead of linking them.")
@click.option(
    "--tsne/--no-tsne",
    default=True,
    show_default=False,
    help="Draw t-SNE panels, which needs scikit-learn.  [default: on]",
)
@json_option
def report(runs: tuple[Path, ...], out: Path, as_json: bool, **options: Any) -> int:
    """Write a static page about runs.

    It shows numbers, charts, and a browser of the clips.
    """
    written = avel.report(runs, out, **options)
    show(written, as_json, next=f"open {path_of(written.index)} in a browser")
    return DONE


@command(
    "avel plot runs/tacma confusion --out confusion.pdf",
    "avel plot runs/theta sweep --setting theta --out figure6.pdf",
)
@click.argument("run", type=PathTo("run", "runs"))
@click.argument("kind", type=click.Choice(["confusion", "curves", "tsne", "sweep", "timeline"]))
@click.option("--out", type=PATH, required=True, help="Picture to write: .png, .svg or .pdf.")
@click.option("--split", type=SPLIT, default="test", help="Split whose segments are shown.")
@click.option("--setting", help="sweep: setting on the axis.  [default: the only one that was swept]")
@click.option("--video", help="timeline: id of the clip.  [default: one that is partly right]")
@click.option("--store", help="timeline: clip store.  [default: the one the cache names]")
@json_option
def plot(run: Path, kind: str, out: Path, as_json: bool, **options: Any) -> int:
    """Draw one picture of a run for a paper.

    For sweep, RUN is the run of a sweep or a folder of runs.
    """
    show(avel.plot(run, kind, out, **options), as_json, next=after_training(run))
    return DONE


@command(
    "avel predict runs/tacma street.mp4",
    "avel predict runs/tacma street.mp4 --out street.vtt",
    "avel predict runs/tacma street.mp4 market.mp4 --out events.json --format activitynet",
    context_settings=IDS,
)
@click.argument("run", type=RUN)
@click.argument("videos", type=PathTo("video", "file"), nargs=-1, required=True)
@click.option("--out", type=PATH, help="File to write the events to: .json, .csv, .vtt, .txt or .tsv.")
@click.option(
    "--format",
    type=click.Choice(["auto", "json", "csv", "vtt", "audacity", "desed", "activitynet"]),
    default="auto",
    help="Format of --out; auto goes by its ending (.txt: Audacity, .tsv: DESED).",
)
@click.option("--preview", type=PATH, help="Draw the events of one video: .png, or .mp4 with a timeline.")
@click.option("--trial", help="One trial of the run.  [default: the mean of all of its best setting]")
@click.option("--encoder", type=ENCODER, help="Run of avel pretrain.  [default: where the cache says]")
@click.option(
    "--visual-weights",
    type=PATH,
    multiple=True,
    help="Weights of a visual CNN that the cache knows by hash, or the folder of a model that was moved; may "
    "be given several times.",
)
@click.option(
    "--audio-weights",
    type=PATH,
    multiple=True,
    help="Weights of an audio CNN that the cache knows by hash, or the folder of a model that was moved; may "
    "be given several times.",
)
@click.option("--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where there is one.")
@json_option
def predict(run: Path, videos: tuple[Path, ...], as_json: bool, **options: Any) -> int:
    """Find the events in videos of any length.

    Uses the trained head of RUN, and the encoders of the cache that it was trained on.
    """
    predicted = avel.predict(run, videos, **options)
    more = "--out FILE writes the events, --preview FILE draws those of one video"
    show(predicted, as_json, next="" if predicted.written else more)
    return SOME_FAILED if predicted.failed else DONE


@command("avel doctor")
@click.option(
    "--self-test/--no-self-test",
    default=True,
    show_default=False,
    help="Take one small clip through every stage.  [default: on]",
)
@json_option
def doctor(self_test: bool, as_json: bool) -> int:
    """Check this machine for what avel needs.

    Versions, GPU, decoders, disk, memory, and one clip through every stage.
    """
    found = avel.doctor(self_test=self_test)
    show(found, as_json, next="avel demo demo/" if found.passed else "what stands below each failed check")
    return DONE if found.passed else ERROR


@command("avel demo demo/")
@click.argument("folder", type=PATH)
@click.option("--clips", type=click.IntRange(24, 1000), default=240, help="Clips to make.")
@click.option("--seed", type=int, default=0, help="Seed of clips and weights.")
@json_option
def demo(folder: Path, clips: int, seed: int, as_json: bool) -> int:
    """Run every stage on synthetic clips, in a few minutes.

    Makes the clips itself; all files go to FOLDER.
    """
    found = avel.demo(folder, clips=clips, seed=seed)
    show(found, as_json, next=after_training(folder / "heads" / "mlp-both"))
    return DONE


def main() -> None:
    """Runs the `avel` command, and exits with its code."""
    code = run(cli)
    gc.freeze()  # else Python collects garbage over every module at exit, which takes 0.2 to 0.4 s
    sys.exit(code)
