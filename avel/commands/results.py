"""Commands that print what runs and predictions score."""

import operator
from pathlib import Path
from typing import Any, get_args

import click

import avel
from avel.commands.group import (
    ANNOTATED,
    CACHE,
    RUN,
    SEGMENT_SECONDS,
    SEGMENTS,
    SPLIT,
    after_training,
    command,
)
from avel.config import resolve
from avel.console import DONE, PathTo, path_of, show, show_rows
from avel.errors import ConfigError
from avel.heads.config import TaskChoice, TrainConfig
from avel.options import dataset_options, json_option, loose_settings

DECODER = click.option(
    "--decoder",
    type=click.Choice(["argmax", "event", "threshold"]),
    help="argmax: a segment's likeliest class; event: one class for the whole clip, or background; "
    "threshold: every class of at least 0.5.  [default: argmax; threshold if a segment may have several "
    "labels]",
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
ALL = click.option("--all", "in_full", is_flag=True, help="Print every figure.")
ALL_LINES = operator.methodcaller("all_lines")
"""Function that returns what is printed with --all."""


@command("avel runs runs/", "avel runs runs/ --against runs/mlp")
@click.argument("folder", type=PathTo("runs", "run", "dataset"))
@click.option("--against", type=RUN, help="Run to compare all with.  [default: the best on validation]")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV on stdout.")
@json_option
def runs(folder: Path, against: Path | None, as_csv: bool, as_json: bool) -> int:
    """List the runs in a folder with their accuracies.

    Takes all runs below FOLDER. The columns are test accuracy at the best validation epoch, with its std over
    seeds; F1 over events; validation accuracy; test accuracy at the best test epoch, and on samples that hold
    background. Accuracies are percent of segments. Below the table are paired differences with 95 %
    intervals. --json and --csv print every column.
    """
    from avel.heads.evaluation.runs import best_line, run_headline, run_table

    if as_csv and as_json:
        raise ConfigError("cannot take --csv and --json together", hint="give one of them")
    found = avel.list_runs(folder, against=against)
    if as_csv:
        show_rows(found)
        return DONE
    best = best_line(found)
    then = after_training(folder / best.run) if best else f"avel runs {path_of(folder)} --against RUN"
    if not any(line.seeds for line in found):
        then = "avel train-head CACHE RUN"
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
    "head.  [default: those that RUN was trained on]",
)
@loose_settings("train-head", config_type=TrainConfig)
@DECODER
@ONSET_TOLERANCE
@OFFSET_TOLERANCE
@ALL
@json_option
def evaluate(
    run: Path, cache: Path | None, settings: dict[str, Any], in_full: bool, as_json: bool, **options: Any
) -> int:
    """Print what a run scores on a split.

    Prints segment accuracy, or the F1 of segments and of events where segments may have several labels: mean
    and standard deviation over the seeds of RUN, beside trivial baselines. With --cache RUN is a file of
    weights, which are evaluated as they are.
    """
    if cache is not None:
        config = resolve(TrainConfig, "train-head", options=settings)
        found, then = avel.evaluate_checkpoint(run, cache, config, **options), ""
    elif settings:
        raise ConfigError(
            f"{', '.join(settings)}: --set and --config need --cache",
            hint="leave them out: a run has its settings",
        )
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
    help="One label a segment, or any number in audio and visual each; auto: what the events need.",
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

    Where a segment may have several labels, K is twice the number of classes: all in audio, then all in
    visual; .npy may also be (rows, T, 2, classes). Values may be 0 and 1 instead of scores. A column is
    named "Dog (audio)".
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
@click.option(
    "--settings-b", help="The same of B; A and B may be one sweep.  [default: the best on validation]"
)
@json_option
def compare(a: Path, b: Path, as_json: bool, **options: Any) -> int:
    """Compare two runs clip by clip.

    Prints the paired differences between A and B, each with its 95 % interval from a bootstrap over videos
    and seeds, how many segments each labels right, and the clips where they differ most. If an interval
    contains 0, these clips and seeds do not tell which run is better.
    """
    then = f"avel report {' '.join(dict.fromkeys(map(path_of, (a, b))))} --out report"
    show(avel.compare(a, b, **options), as_json, next=then)
    return DONE
