"""Lists the tasks, and chooses the one that fits a cache."""

from avel.heads.tasks.multi_label import PER_MODALITY, MultiLabel
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.tasks.task import Task, TrackName
from avel.stores.datasets.dataset import Dataset
from avel.stores.features import FeatureCache

TASKS: dict[str, type[Task]] = {task.name: task for task in (SingleLabel, MultiLabel)}
"""Name -> task."""


def choose_task(cache: FeatureCache, name: str) -> Task:
    """Returns the task of that name for a cache; of "auto" the one that its events are for.

    Events that are only seen or only heard want labels for each modality, and so several at once.
    """
    return _task(cache.categories, bool(cache.samples.events.modality.any()), name)


def task_of_dataset(dataset: Dataset, name: str) -> Task:
    """Returns the task of that name for a dataset, as `choose_task` does for a cache of it."""
    return _task(dataset.categories, bool(dataset.event_table().modality.any()), name)


def _task(categories: tuple[str, ...], per_modality: bool, name: str) -> Task:
    if name == "auto":
        name = MultiLabel.name if per_modality else SingleLabel.name
    tracks: tuple[TrackName, ...] = PER_MODALITY if per_modality and name == MultiLabel.name else ("",)
    return TASKS[name](categories, tracks)
