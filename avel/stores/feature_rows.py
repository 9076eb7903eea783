"""Which annotation rows a feature cache can serve: those whose video is in it; the rest by name."""

from collections.abc import Mapping

import numpy as np

from avel.grid import Grid
from avel.stores.datasets.dataset import Dataset
from avel.stores.features import Missing, Rows

NO_ROW = -1
"""Row number of a missing video that no annotation names."""


def rows_of_videos(
    dataset: Dataset, grid: Grid, video_ids: tuple[str, ...], reasons: Mapping[str, str]
) -> tuple[Rows, tuple[Missing, ...]]:
    """The R rows of the V given videos with labels (R, T), and every row and video that is absent, with why.

    `reasons` says of each absent video why it is; videos without rows are absent under row -1.
    """
    place = {video_id: number for number, video_id in enumerate(video_ids)}
    kept = np.array([row.video_id in place for row in dataset.rows], bool)
    chosen = [row for row in dataset.rows if row.video_id in place]
    leaked = dataset.leaked()
    rows = Rows(
        row=np.array([row.row for row in chosen], np.int64),
        video=np.array([place[row.video_id] for row in chosen], np.int64),
        label=dataset.labels(grid)[kept],
        category=np.array([dataset.class_ids[row.category] for row in chosen], np.int64),
        split=np.array([row.split for row in chosen], object),
        leaked=np.array([row.row in leaked for row in chosen], bool),
    )
    return rows, _missing(dataset, place, reasons)


def _missing(dataset: Dataset, place: Mapping[str, int], reasons: Mapping[str, str]) -> tuple[Missing, ...]:
    rows = [
        Missing(row.row, row.video_id, reasons.get(row.video_id, "not staged"))
        for row in dataset.rows
        if row.video_id not in place
    ]
    annotated = {row.video_id for row in dataset.rows}
    bare = [
        Missing(NO_ROW, video.video_id, reasons.get(video.video_id, "not staged"))
        for video in dataset.videos
        if video.video_id not in annotated and video.video_id not in place
    ]
    return tuple(rows + bare)
