"""Commands that look at files and results, find events in videos, and check the machine."""

from pathlib import Path
from typing import Any

import click

import avel
from avel.commands.group import ENCODER, PATH, RUN, SPLIT, STORE, after_training, command
from avel.console import DONE, ERROR, SOME_FAILED, PathTo, path_of, show
from avel.options import dataset_options, json_option

IDS = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""Context of commands that take ids of clips, which are no options although they may begin with a dash."""
AFTER_INSPECTION = {
    "dataset": "avel extract {} clips.zarr",
    "store": "avel pretrain {} runs/avbt, or avel preview {} ID sheet.png",
    "cache": "avel train-head {} runs/tacma --head tacma --seeds 5",
    "train-head": "avel evaluate {} --all; --json prints every setting",
    "pretrain": "avel cache-features STORE features.h5 --encoder {}",
}
"""Kind of a path, or stage of a run, -> command that comes next, if what lies there is complete."""


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
    then = found.fix or AFTER_INSPECTION[found.facts.get("stage", found.kind)].replace("{}", path_of(path))
    if found.kind == "dataset" and not found.fix:
        then += _as_read(**options)
    show(found, as_json, next=then)
    return DONE if found.whole else ERROR


def _as_read(annotations: Path | None, format: str, format_settings: dict[str, str], **others: Any) -> str:
    """Returns the options that a dataset was read with, for the command that stages it."""
    words = [f" --annotations {path_of(annotations)}"] if annotations else []
    words += [f" --format {format}"] if format != "auto" else []
    words += [f" --format-set {path_of(f'{key}={value}')}" for key, value in format_settings.items()]
    return "".join(words)


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
    """Draw a staged clip with its events.

    Writes ten frames of the clip ID, its log-mel patches and a bar for each event to OUT: .png, .svg or .pdf.
    """
    drawn = avel.preview(store, video_id, out)
    shows = f"{drawn}: frames, log-mel and events of {video_id}"
    show(None, False, headline=shows, next=f"open {path_of(drawn)}")
    return DONE


@command("avel report runs/mlp runs/tacma --out report")
@click.argument("runs", type=RUN, nargs=-1, required=True)
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="Folder of the page: a new one, or that of an older report, which is replaced.",
)
@click.option("--store", help="Clip store with frames and audio.  [default: the one the cache names]")
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
    show(avel.plot(run, kind, out, **options), as_json, next=f"open {path_of(out)}")
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
@click.option(
    "--trial", help="One trial, such as seed=0.  [default: the mean over the trials of its best settings]"
)
@click.option("--encoder", type=ENCODER, help="Run of avel pretrain.  [default: where the cache says]")
@click.option(
    "--visual-weights",
    type=PATH,
    multiple=True,
    help="Weights of a visual CNN, if the cache has their hash alone, or the new folder of a model that was "
    "moved; may be given several times.  [default: as the cache says]",
)
@click.option(
    "--audio-weights",
    type=PATH,
    multiple=True,
    help="The same for an audio CNN.  [default: as the cache says]",
)
@click.option("--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where there is one.")
@json_option
def predict(run: Path, videos: tuple[Path, ...], as_json: bool, **options: Any) -> int:
    """Find the events in videos of any length.

    Uses the trained head of RUN, and the encoders of the cache that it was trained on.
    """
    predicted = avel.predict(run, videos, **options)
    more = "--out FILE writes the events, --preview FILE draws those of one video"
    show(predicted, as_json, next=more if predicted.found and not predicted.written else "")
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

    Looks at versions, GPU, decoders, disk and memory, and takes one clip through every stage.
    """
    found = avel.doctor(self_test=self_test)
    show(found, as_json, next="avel demo demo/" if found.passed else "do what stands below each failed check")
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
