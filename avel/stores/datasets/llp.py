"""LLP's layout: tab-separated lists of clips, and the events of audio and of visual apart.

Source: folder data of https://github.com/YapengTian/AVVP-ECCV20, the authors' (Tian et al. 2020).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from avel.errors import DatasetError, MissingPathError
from avel.progress import note
from avel.stores.datasets.annotation_text import parse_event, read_rows
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.formats import FORMATS, DatasetFormat, folder_with
from avel.stores.datasets.media import MediaConfig, match_media, media_files
from avel.stores.datasets.sample import Event, Modality, Sample
from avel.text import plural

SPLIT_LISTS = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
"""Split -> its clips, each with the classes that it holds somewhere."""
EVENTS: dict[Modality, str] = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
"""Modality -> its events in the clips of val and test."""
COLUMNS = ("filename", "onset", "offset", "event_labels")
"""Columns of the files of events."""
ID_LETTERS = 11
"""Length of a video's id on YouTube. Lists add the first and last second; file names may omit them."""


@FORMATS.register("llp")
class LLP(DatasetFormat[MediaConfig]):
    """LLP's folder: of train clips the classes are known, of val and test clips the events of each modality.

    A clip of val or test that both event files leave out has no event. Videos may be absent.
    """

    Config = MediaConfig

    @staticmethod
    def matches(folder: Path) -> bool:
        return folder_with([*EVENTS.values()], folder, "data") is not None

    def read(self, folder: Path) -> Dataset:
        """Returns the clips of train, val and test in the order of their lists.

        Raises:
            MissingPathError: an event file or the list of train is not there.
            DatasetError: a line that cannot be read, a clip that is in two lists or has two files.
        """
        found = folder_with([*EVENTS.values()], folder, "data")
        if found is None:
            raise MissingPathError(
                f"{folder}: holds no {' and '.join(EVENTS.values())}",
                hint="copy data/ of the authors' repository",
            )
        samples = _samples(found)
        files = media_files(self.config.videos or found)
        videos, extra = match_media(samples, _by_id(files, (sample.video_id for sample in samples)))
        return make_dataset(folder.resolve().name, folder, samples, videos, extra)


def _samples(folder: Path) -> tuple[Sample, ...]:
    events = _events(folder)
    samples: dict[str, Sample] = {}
    for split, name in SPLIT_LISTS.items():
        path = folder / name
        if not path.is_file() and split != "train":
            continue
        for row in read_rows(path, ("filename", "event_labels"), "\t"):
            video_id = row.fields["filename"]
            if video_id in samples:
                raise DatasetError(
                    f"{row.where} ({video_id}): stands in {samples[video_id].where} as well",
                    hint="take one of them out",
                )
            number = len(samples)
            if split == "train":
                names = dict.fromkeys(map(str.strip, row.fields["event_labels"].split(",")))
                classes = tuple(filter(None, names))
                sample = Sample(number, video_id, None, split=split, where=row.where, categories=classes)
            else:
                found = tuple(events.pop(video_id, ()))
                sample = Sample(number, video_id, found, split=split, where=row.where)
            samples[video_id] = sample
    if events:
        note(f"{folder}: events of {plural(len(events), 'clip')} in neither val nor test are left out")
    return tuple(samples.values())


def _events(folder: Path) -> dict[str, list[Event]]:
    """Returns clip -> its events of both modalities; those that end before they begin are left out."""
    events: dict[str, list[Event]] = {}
    backward = []
    for modality, name in EVENTS.items():
        for row in read_rows(folder / name, COLUMNS, "\t"):
            video_id, onset, offset, category = (row.fields[column] for column in COLUMNS)
            event = parse_event(category, onset, offset, row.where, video_id, modality)
            if event.offset_seconds < event.onset_seconds:
                backward.append(row.where)
            else:
                events.setdefault(video_id, []).append(event)
    if backward:
        count = plural(len(backward), "event")
        note(f"left out: {count} with the end before the onset; the first is {backward[0]}")
    return events


def _by_id(files: Mapping[str, list[Path]], video_ids: Iterable[str]) -> dict[str, list[Path]]:
    """Returns id -> files of each clip, named as the clip or as the video that it is cut from."""
    found = dict(files)
    for video_id in video_ids:
        if video_id not in found and video_id[:ID_LETTERS] in found:
            found[video_id] = found.pop(video_id[:ID_LETTERS])
    return found
