"""Lists the tasks, and chooses the one that fits a cache or a dataset."""

from avel.heads.tasks.multi_label import PER_MODALITY, MultiLabel
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.tasks.task import Task, TrackName
from avel.stores.datasets.dataset import Dataset
from avel.stores.features import FeatureCache

TASKS: dict[str, type[Task]] = {task.name: task for task in (SingleLabel, MultiLabel)}
"""Name -> task."""


def choose_task(labelled: FeatureCache | Dataset, name: str) -> Task:
    """Returns the task of that name for a cache or a dataset; "auto" is the one that its events need.

    If any event is in one modality alone, that is `multi_label`, with a track of labels for each modality.
    """
    events = labelled.event_table() if isinstance(labelled, Dataset) else labelled.samples.events
    per_modality = bool(events.modality.any())
    if name == "auto":
        name = MultiLabel.name if per_modality else SingleLabel.name
    tracks: tuple[TrackName, ...] = PER_MODALITY if per_modality and name == MultiLabel.name else ("",)
    return TASKS[name](labelled.categories, tracks)
