"""From events to labels: held to a reference that looks at a clip millisecond by millisecond."""

from pathlib import Path

import numpy as np
import pytest

from avel.errors import DatasetError
from avel.grid import Grid
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.labels import NO_CLASS, UNKNOWN, events_known, overlaps, video_labels
from avel.stores.datasets.sample import Event, Sample, Video

CLASSES = ("bark", "bell", "horn")
TEN_SECONDS = Grid()


def dataset(*events: tuple[Event, ...] | None) -> Dataset:
    """A sample for each tuple of events, after one with an event of each class, so that ids are known."""
    first = tuple(Event(name, number, number + 1) for number, name in enumerate(CLASSES))
    samples = tuple(Sample(number, f"v{number}", each) for number, each in enumerate((first, *events)))
    return make_dataset("made", "made", samples, tuple(Video(each.video_id, "") for each in samples))


def labels_of(*events: Event, grid: Grid = TEN_SECONDS) -> list[int]:
    """The labels of one sample."""
    made = dataset(events)
    return [int(label) for label in made.labels(grid, made.samples[1:])[0]]


def by_the_millisecond(events: tuple[Event, ...], grid: Grid) -> list[int]:
    """Counts, in each segment, the milliseconds that each class is on; half of them make its label."""
    labels = []
    length = round(1000 * grid.segment_seconds)
    for segment in range(grid.segments):
        label = len(CLASSES)
        for number, name in enumerate(CLASSES):
            count = 0
            for ms in range(segment * length, (segment + 1) * length):
                middle = (ms + 0.5) / 1000
                count += any(
                    event.category == name and event.onset_seconds < middle < event.offset_seconds
                    for event in events
                )
            if count >= length / 2:
                label = number
        labels.append(label)
    return labels


def test_events_are_known_where_no_segment_is_unknown() -> None:
    labels = np.array([[0, 2, -2], [-1, -1, -1], [2, 2, 2]])
    assert events_known(labels).tolist() == [True, False, True]
    assert events_known(np.stack([labels, labels], -1)).tolist() == [True, False, True]


@pytest.mark.parametrize("grid", [Grid(), Grid(segments=12, segment_seconds=0.5), Grid(5, 2.0)])
def test_any_events_have_the_labels_that_counting_gives(grid: Grid) -> None:
    random = np.random.default_rng(0)
    for _ in range(25):
        edges = np.sort(random.choice(np.arange(0, 10500, 7), 8, replace=False)) / 1000
        spans = zip(edges[::2], edges[1::2], strict=True)
        events = tuple(Event(CLASSES[random.integers(3)], float(a), float(b)) for a, b in spans)
        shuffled = tuple(events[place] for place in random.permutation(4))
        assert labels_of(*shuffled, grid=grid) == by_the_millisecond(events, grid)


def test_two_events_of_a_class_and_none() -> None:
    made = dataset((Event("bell", 1, 3), Event("bell", 6.4, 8.6)), (), None)
    labels = made.labels(Grid())
    assert labels[1].tolist() == [3, 1, 1, 3, 3, 3, 1, 1, 1, 3]
    assert labels[2].tolist() == [3] * 10
    assert labels[3].tolist() == [UNKNOWN] * 10
    assert video_labels(made.event_table(), 4).tolist() == [NO_CLASS, 1, NO_CLASS, NO_CLASS]


def test_short_events_of_a_class_add_up_and_their_common_seconds_count_once() -> None:
    assert labels_of(Event("bark", 0, 0.3), Event("bark", 0.6, 0.8))[0] == 0
    assert labels_of(Event("bark", 0, 0.4), Event("bark", 0.1, 0.4))[0] == 3
    assert labels_of(Event("bark", 0, 0.4), Event("bark", 0.0, 0.1), Event("bark", 0.3, 0.5))[0] == 0


def test_of_two_classes_that_share_a_segment_by_halves_the_first_has_it() -> None:
    for order in (1, -1):
        events = (Event("horn", 0, 2.5), Event("bark", 2.5, 5))[::order]
        assert labels_of(*events) == [2, 2, 2, 0, 0, 3, 3, 3, 3, 3]


def test_halves_of_segments_survive_rounding() -> None:
    """5.6 - 5.1 is a little less than 0.5 in float64."""
    halves = [(segment, tenth) for segment in range(10) for tenth in range(6)]
    spans = [(float(f"{segment}.{tenth}"), float(f"{segment}.{tenth}") + 0.5) for segment, tenth in halves]
    spans = [(onset, round(offset, 1)) for onset, offset in spans]
    assert any(offset - onset < 0.5 for onset, offset in spans)
    for (segment, _), (onset, offset) in zip(halves, spans, strict=True):
        assert labels_of(Event("bark", onset, offset))[segment] == 0


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((Event("bark", 0, 5), Event("bell", 4, 8)), "'bark' and 'bell' overlap from 4 s to 5 s"),
        ((Event("bell", 4, 8), Event("bark", 0, 5)), "'bark' and 'bell' overlap from 4 s to 5 s"),
        ((Event("bark", 0, 9), Event("bark", 1, 2), Event("horn", 6.5, 7)), "overlap from 6.5 s to 7 s"),
        ((Event("bark", 2, 2.25), Event("horn", 2.125, 3)), "overlap from 2.125 s to 2.25 s"),
    ],
)
def test_events_of_two_classes_at_once_are_named(events: tuple[Event, ...], words: str) -> None:
    with pytest.raises(DatasetError, match=rf"made: sample 1 \(v1\): .*{words}, and a segment has one label"):
        dataset(events).labels(Grid())


@pytest.mark.parametrize(
    "events",
    [
        (Event("bark", 0, 5), Event("bell", 5, 8)),
        (Event("bark", 0, 5), Event("bark", 4, 8)),
        (Event("bark", 0, 5), Event("bell", 3, 3)),
        (Event("bark", 0, 12), Event("bell", 10, 11)),
    ],
)
def test_what_does_not_overlap_on_the_grid(events: tuple[Event, ...]) -> None:
    assert list(overlaps(dataset(events).event_table(), 10)) == []


def test_an_overlap_is_named_with_its_line(tmp_path: Path) -> None:
    from avel.stores.datasets.formats import read_dataset

    (tmp_path / "a.mp4").touch()
    table = tmp_path / "events.csv"
    table.write_text("file,label,start,end\nb,Dog,0,1\na,Dog,0,5\na,Cat,4,6\n")
    with pytest.raises(DatasetError, match=r"events\.csv: line 3 \(a\): 'Dog' and 'Cat' overlap from 4 s"):
        read_dataset(tmp_path, table).labels(Grid())
