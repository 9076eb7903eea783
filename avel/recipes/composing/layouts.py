"""Writes synthetic datasets in the layouts that avel reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from avel.recipes.composing.script import Course, Script
from avel.stores.datasets.activitynet import activitynet_text
from avel.stores.datasets.dataset import SPLITS, Annotated
from avel.stores.datasets.desed import desed_text

Scripts = Sequence[Script]
HEADER = "Category&VideoID&Quality&StartTime&EndTime"
INSIDE_SECONDS = 0.25
"""Seconds by which AVE-PM's events begin later and end earlier; their labels stay the same."""


@dataclass(frozen=True)
class Layout:
    """Layout of a dataset in its folder.

    Attributes:
        clip: number and script of a clip -> its file, below the folder of the dataset.
        files: scripts -> text of each annotation file.
        course: kind of events in its clips.
        unseen: number of classes without train clips.
    """

    clip: Callable[[int, Script], str]
    files: Callable[[Scripts], dict[str, str]]
    course: Course = "one"
    unseen: int = 0


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
    """Returns OV-AVEBench's table, and its labels as text of lists in a JSON."""
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


def _annotated(script: Script) -> Annotated:
    return Annotated(script.video_id, len(script.video), script.events, script.split)


def _vector(script: Script) -> list[int]:
    return [
        int(any(event.onset_seconds <= second < event.offset_seconds for event in script.events))
        for second in range(len(script.video))
    ]


LAYOUTS: dict[str, Layout] = {
    "ave": Layout(lambda _, script: f"AVE/{script.video_id}.mp4", ave_files),
    "ave-pm": Layout(lambda number, _: f"videos/{number}.mp4", ave_pm_files),
    "ov-avebench": Layout(
        lambda _, script: f"videos/{script.video_id}.mp4", ov_avebench_files, "runs", unseen=1
    ),
    "vggsound-avel": Layout(
        lambda number, script: f"video/{script.video_id}_{number:06}.mp4", vggsound_avel_files, "runs"
    ),
    "activitynet": Layout(lambda _, script: f"videos/{script.video_id}.mp4", activitynet_files, "mixed"),
    "desed": Layout(lambda _, script: f"videos/{script.video_id}.mp4", desed_files, "mixed"),
}
"""Name of a dataset format -> its layout."""
