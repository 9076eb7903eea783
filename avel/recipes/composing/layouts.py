"""Writes synthetic datasets in the layouts that avel reads."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from avel.recipes.composing.script import Course, Script
from avel.stores.datasets.activitynet import activitynet_text
from avel.stores.datasets.desed import desed_text
from avel.stores.datasets.formats import PLAIN
from avel.stores.datasets.llp import EVENTS, LISTS
from avel.stores.datasets.sample import SPLITS, Annotated, Modality
from avel.stores.datasets.segment_vector import SEGMENTS

Scripts = Sequence[Script]
HEADER = "Category&VideoID&Quality&StartTime&EndTime"
ANY: tuple[Course, ...] = ("mixed", "one", "runs", "overlapping")
"""Courses whose events are both shown and heard."""
INSIDE_SECONDS = 0.25
"""Seconds by which AVE-PM's events begin later and end earlier; their labels stay the same."""


@dataclass(frozen=True)
class FolderLayout:
    """Layout of a dataset in its folder.

    Attributes:
        clip: number and script of a clip -> its file, below the folder of the dataset.
        files: scripts -> text of each annotation file.
        courses: those that it can express, the usual one first.
        seconds: length of a clip, where all have the same.
        unseen: number of classes without train clips.
        annotations: file that must be named where the layout is read, if any.
    """

    clip: Callable[[int, Script], str]
    files: Callable[[Scripts], dict[str, str]]
    courses: tuple[Course, ...] = ("one",)
    seconds: int | None = None
    unseen: int = 0
    annotations: str = ""


def ave_files(scripts: Scripts) -> dict[str, str]:
    """Returns AVE's text files by name: each split's lines, and all of them below a header."""
    lines = {
        script: f"{event.category}&{script.video_id}&good&{event.onset_seconds:g}&{event.offset_seconds:g}\n"
        for script in scripts
        for event in script.events
    }
    files = {"Annotations.txt": HEADER + "\n" + "".join(lines.values())}
    for split in SPLITS:
        files[f"{split}Set.txt"] = "".join(line for script, line in lines.items() if script.split == split)
    return files


def ave_pm_files(scripts: Scripts) -> dict[str, str]:
    """Returns a table for each split, and that of the classes, whose ids are in order of the alphabet."""
    names = sorted({script.category for script in scripts})
    tables = {split: ["sample_id,onset,offset,label"] for split in SPLITS}
    for number, script in enumerate(scripts):
        for event in script.events:
            onset, offset = event.onset_seconds + INSIDE_SECONDS, event.offset_seconds - INSIDE_SECONDS
            tables[script.split].append(f"{number},{onset},{offset},{names.index(event.category)}")
    classes = ["class_id,class_name", *(f"{number},{name}" for number, name in enumerate(names))]
    lines = {f"{split}.csv": table for split, table in tables.items()} | {"class_name_mapping.csv": classes}
    return {name: "\n".join((*table, "")) for name, table in lines.items()}


def ov_avebench_files(scripts: Scripts) -> dict[str, str]:
    """Returns OV-AVEBench's table, and its JSON, in which each label is a list written as text."""
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
    """Returns VGGSound-AVEL's table, and its vectors in a JSON beside it."""
    rows = [f"{script.category},{script.video_id},{script.split}" for script in scripts]
    vectors = {script.video_id: {"label": _vector(script)} for script in scripts}
    return {
        "vggsound-avel100k.csv": "\n".join(("category,video_id,split", *rows, "")),
        "vggsound-avel100k_annos.json": json.dumps(vectors) + "\n",
    }


def activitynet_files(scripts: Scripts) -> dict[str, str]:
    """Returns ActivityNet's JSON."""
    return {"annotations/annotations.json": activitynet_text(_annotated(script) for script in scripts)}


def desed_files(scripts: Scripts) -> dict[str, str]:
    """Returns DESED's tables, one for each split."""
    names = {"train": "train", "val": "validation", "test": "test"}
    return {
        f"{name}.tsv": desed_text(_annotated(script) for script in scripts if script.split == split)
        for split, name in names.items()
    }


def llp_files(scripts: Scripts) -> dict[str, str]:
    """Returns LLP's lists of clips with their classes, and its tables of audible and of visible events."""
    lists = {split: ["filename\tevent_labels"] for split in SPLITS}
    header = "filename\tonset\toffset\tevent_labels"
    tables: dict[Modality, list[str]] = {"audio": [header], "visual": [header]}
    for script in scripts:
        name = f"{script.video_id}_0_{len(script.video)}"
        events = (*script.audio_events, *script.visual_events)
        lists[script.split].append(f"{name}\t{','.join(dict.fromkeys(event.category for event in events))}")
        for event in events if script.split != "train" else ():
            times = f"{event.onset_seconds:g}\t{event.offset_seconds:g}"
            tables[event.modality].append(f"{name}\t{times}\t{event.category}")
    files = {LISTS[split]: lines for split, lines in lists.items()}
    files |= {EVENTS[modality]: lines for modality, lines in tables.items()}
    return {f"data/{name}": "\n".join((*lines, "")) for name, lines in files.items()}


def folder_files(scripts: Scripts) -> dict[str, str]:
    """Returns a table of events for a plain folder."""
    rows = ["file,class,onset,offset,split"]
    for script in scripts:
        rows += [
            f"{script.video_id},{event.category},{event.onset_seconds:g},{event.offset_seconds:g},{script.split}"
            for event in script.events
        ] or [f"{script.video_id},,,,{script.split}"]
    return {"events.csv": "\n".join((*rows, ""))}


def _annotated(script: Script) -> Annotated:
    return Annotated(script.video_id, len(script.video), script.events, script.split)


def _vector(script: Script) -> list[int]:
    return [
        int(any(event.onset_seconds <= second < event.offset_seconds for event in script.events))
        for second in range(len(script.video))
    ]


LAYOUTS: dict[str, FolderLayout] = {
    "ave": FolderLayout(lambda _, script: f"AVE/{script.video_id}.mp4", ave_files),
    "ave-pm": FolderLayout(lambda number, _: f"videos/{number}.mp4", ave_pm_files),
    "ov-avebench": FolderLayout(
        lambda _, script: f"videos/{script.video_id}.mp4",
        ov_avebench_files,
        ("runs", "one"),
        SEGMENTS,
        unseen=1,
    ),
    "vggsound-avel": FolderLayout(
        lambda number, script: f"video/{script.video_id}_{number:06}.mp4",
        vggsound_avel_files,
        ("runs", "one"),
        SEGMENTS,
    ),
    "activitynet": FolderLayout(lambda _, script: f"videos/{script.video_id}.mp4", activitynet_files, ANY),
    "desed": FolderLayout(lambda _, script: f"videos/{script.video_id}.mp4", desed_files, ANY),
    "llp": FolderLayout(
        lambda _, script: f"data/LLP_dataset/video/{script.video_id}.mp4", llp_files, ("parsing", *ANY)
    ),
    PLAIN: FolderLayout(
        lambda _, script: f"{script.video_id}.mp4", folder_files, ANY, annotations="events.csv"
    ),
}
"""Name of a dataset format -> its layout."""
