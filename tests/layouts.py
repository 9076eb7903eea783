"""Writes annotations of composed clips in the layouts of all datasets that avel reads."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from avel.recipes.composing.compose import annotation_files, record
from avel.recipes.composing.script import Script, write_scripts
from avel.stores.datasets.activitynet import activitynet_text
from avel.stores.datasets.desed import desed_text
from avel.stores.datasets.formats import PLAIN
from avel.stores.datasets.llp import EVENTS, SPLIT_LISTS
from avel.stores.datasets.sample import MODALITIES, SPLITS, Annotated, Event, Modality

Scripts = Sequence[Script]
EventPattern = Literal["one", "runs", "mixed", "overlapping", "parsing"]
"""Events of a clip. "one": one event; "runs": none to two of one class; "mixed": one or two of two classes;
"overlapping": two that overlap; "parsing": one audible alone, one visible alone, one both, at any times."""
INSIDE_SECONDS = 0.25
"""Seconds by which events of AVE-PM are made shorter at both ends; the labels of segments stay the same."""


@dataclass(frozen=True)
class FolderLayout:
    """Layout of a dataset in its folder.

    Attributes:
        files: scripts -> text of each annotation file.
        clip: path of a clip below the folder of the dataset, with {id} or {number} in it.
        pattern: events that its clips have.
        seconds: length of a clip where no test asks for another.
        annotations: file that must be named where the layout is read, if any.
    """

    files: Callable[[Scripts], dict[str, str]]
    clip: str = "videos/{id}.mp4"
    pattern: EventPattern = "mixed"
    seconds: int = 4
    annotations: str = ""

    def path(self, folder: Path, script: Script, number: int) -> Path:
        return folder / self.clip.format(id=script.video_id, number=number)


def scripts_of(
    layout: str, clips: int, classes: Sequence[str], seconds: int = 10, pattern: EventPattern | None = None
) -> tuple[Script, ...]:
    """Scripts with the layout's events; no train clip of OV-AVEBench has the last class, which is "open"."""
    pattern, rng = pattern or LAYOUTS[layout].pattern, np.random.default_rng(0)
    scripts = write_scripts(clips, 0, classes, seconds)
    if pattern == "one":
        return scripts
    if layout == "ov-avebench":
        scripts = tuple(
            replace(each, category=classes[0])
            if (each.split, each.category) == ("train", classes[-1])
            else each
            for each in scripts
        )
    return tuple(_acted(each, number, pattern, rng, classes) for number, each in enumerate(scripts))


def _acted(
    script: Script, number: int, pattern: EventPattern, rng: np.random.Generator, classes: Sequence[str]
) -> Script:
    """The script with events of the pattern, each of a class, a modality, an onset and an offset."""
    seconds, name = len(script.video), script.category
    other = next(each for each in classes if each != name)

    def cuts(count: int) -> list[int]:
        return sorted(rng.choice(seconds + 1, count, replace=False).tolist())

    if pattern == "parsing":
        modalities = rng.permutation(MODALITIES).tolist()
        events = [(each, of, *cuts(2)) for each, of in zip((name, other, name), modalities, strict=True)]
    elif pattern == "overlapping":
        first, second, third, last = cuts(4)
        events = [(name, "both", first, third), (other, "both", second, last)]
    else:
        times = cuts(2 * (number % 3 if pattern == "runs" else 1 + number % 2))
        names = (name, other if pattern == "mixed" else name)
        spans = zip(times[::2], times[1::2], strict=True)
        events = [(each, "both", *span) for each, span in zip(names, spans, strict=False)]

    def names_at(second: int, modality: Modality) -> tuple[str, ...]:
        there = ("both", modality)
        return tuple(
            sorted({each for each, of, start, end in events if of in there and start <= second < end})
        )

    video, audio = (
        tuple(names_at(second, modality) for second in range(seconds)) for modality in ("visual", "audio")
    )
    return replace(script, video=video, audio=audio)


def write_layout(folder: Path, layout: str, scripts: Scripts, *, recorded: bool = False) -> Path:
    """Writes annotations and clips, which are empty files unless `recorded`: names are enough to read."""
    for number, script in enumerate(scripts):
        path = LAYOUTS[layout].path(folder, script, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        record(path, script, 0, number) if recorded else path.touch()
    write_annotations(folder, layout, scripts)
    return folder


def write_annotations(folder: Path, layout: str, scripts: Scripts) -> None:
    for name, text in LAYOUTS[layout].files(scripts).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def events_of(script: Script, modality: Modality = "both") -> tuple[Event, ...]:
    """The runs of seconds that hold a class in a modality, in order of time."""
    pairs = [(set(video), set(audio)) for video, audio in zip(script.video, script.audio, strict=True)]
    held = [{"both": a & v, "audio": a, "visual": v}[modality] for v, a in pairs]
    events = []
    for name in sorted(set[str]().union(*held)):
        for there, run in groupby(range(len(held)), lambda second, name=name: name in held[second]):
            first, *rest = run
            if there:
                events.append(Event(name, first, first + 1 + len(rest), modality=modality))
    return tuple(sorted(events, key=lambda event: event.onset_seconds))


def ave_pm_files(scripts: Scripts) -> dict[str, str]:
    """A table for each split, and that of the classes, whose ids are in order of the alphabet."""
    names = sorted({script.category for script in scripts})
    tables = {split: ["sample_id,onset,offset,label"] for split in SPLITS}
    for number, script in enumerate(scripts):
        for event in events_of(script):
            onset, offset = event.onset_seconds + INSIDE_SECONDS, event.offset_seconds - INSIDE_SECONDS
            tables[script.split].append(f"{number},{onset},{offset},{names.index(event.category)}")
    classes = ["class_id,class_name", *(f"{number},{name}" for number, name in enumerate(names))]
    lines = {f"{split}.csv": table for split, table in tables.items()} | {"class_name_mapping.csv": classes}
    return {name: "\n".join((*table, "")) for name, table in lines.items()}


def ov_avebench_files(scripts: Scripts) -> dict[str, str]:
    """OV-AVEBench's table, and its JSON, in which each label is a list written as text."""
    trained = {script.category for script in scripts if script.split == "train"}
    rows = ["split,cls_name,cls_type,vid_name"]
    for script in scripts:
        kind = "close" if script.category in trained else "open"
        rows.append(f"{script.split},{script.category},{kind},{script.video_id}")
    labels = {
        script.video_id: {"category": script.category, "label": str(_vector(script))} for script in scripts
    }
    return {
        "ovave_dataset_meta.csv": "\n".join((*rows, "")),
        "released_ovavel_dataset_anno.json": json.dumps(labels, indent=4) + "\n",
    }


def vggsound_avel_files(scripts: Scripts) -> dict[str, str]:
    """VGGSound-AVEL's table, and its vectors in a JSON beside it."""
    rows = [f"{script.category},{script.video_id},{script.split}" for script in scripts]
    vectors = {script.video_id: {"label": _vector(script)} for script in scripts}
    return {
        "vggsound-avel100k.csv": "\n".join(("category,video_id,split", *rows, "")),
        "vggsound-avel100k_annos.json": json.dumps(vectors) + "\n",
    }


def activitynet_files(scripts: Scripts) -> dict[str, str]:
    return {"annotations/annotations.json": activitynet_text(map(_annotated, scripts))}


def desed_files(scripts: Scripts) -> dict[str, str]:
    names = {"train": "train", "val": "validation", "test": "test"}
    return {
        f"{name}.tsv": desed_text(_annotated(script) for script in scripts if script.split == split)
        for split, name in names.items()
    }


def llp_files(scripts: Scripts) -> dict[str, str]:
    """LLP's lists of clips with their classes, and its tables of audible and of visible events."""
    lists = {split: ["filename\tevent_labels"] for split in SPLITS}
    header = "filename\tonset\toffset\tevent_labels"
    tables: dict[Modality, list[str]] = {"audio": [header], "visual": [header]}
    for script in scripts:
        name = f"{script.video_id}_0_{len(script.video)}"
        events = (*events_of(script, "audio"), *events_of(script, "visual"))
        lists[script.split].append(f"{name}\t{','.join(dict.fromkeys(event.category for event in events))}")
        for event in events if script.split != "train" else ():
            times = f"{event.onset_seconds:g}\t{event.offset_seconds:g}"
            tables[event.modality].append(f"{name}\t{times}\t{event.category}")
    files = {SPLIT_LISTS[split]: lines for split, lines in lists.items()}
    files |= {EVENTS[modality]: lines for modality, lines in tables.items()}
    return {f"data/{name}": "\n".join((*lines, "")) for name, lines in files.items()}


def folder_files(scripts: Scripts) -> dict[str, str]:
    """A table of events for a plain folder."""
    rows = ["file,class,onset,offset,split"]
    for script in scripts:
        rows += [
            f"{script.video_id},{event.category},{event.onset_seconds:g},{event.offset_seconds:g},{script.split}"
            for event in events_of(script)
        ] or [f"{script.video_id},,,,{script.split}"]
    return {"events.csv": "\n".join((*rows, ""))}


def _annotated(script: Script) -> Annotated:
    return Annotated(script.video_id, len(script.video), events_of(script), script.split)


def _vector(script: Script) -> list[int]:
    return [int(bool({*video} & {*audio})) for video, audio in zip(script.video, script.audio, strict=True)]


LAYOUTS: dict[str, FolderLayout] = {
    "ave": FolderLayout(annotation_files, "AVE/{id}.mp4", "one"),
    "ave-pm": FolderLayout(ave_pm_files, "videos/{number}.mp4", "one"),
    "ov-avebench": FolderLayout(ov_avebench_files, pattern="runs", seconds=10),
    "vggsound-avel": FolderLayout(vggsound_avel_files, "video/{id}_{number:06}.mp4", "runs", seconds=10),
    "activitynet": FolderLayout(activitynet_files),
    "desed": FolderLayout(desed_files),
    "llp": FolderLayout(llp_files, "data/LLP_dataset/video/{id}.mp4", "parsing"),
    PLAIN: FolderLayout(folder_files, "{id}.mp4", annotations="events.csv"),
}
"""Name of a dataset format -> its layout."""
