"""DESED's tables: one for each split, clips named by files of sound, read and written."""

from pathlib import Path

import pytest

from avel.errors import DatasetError, MissingPathError
from avel.stores.datasets.audit import audit
from avel.stores.datasets.desed import desed_text
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Annotated, Event, Sample

HEADER = "filename\tonset\toffset\tevent_label\n"
CLIP = "Y-BJNMHMZDcU_50.000_60.000"


def layout(root: Path) -> Path:
    """DESED's folders, with videos for its files of sound."""
    tables = {
        "train/weak.tsv": f"filename\tevent_labels\n{CLIP}.wav\tDog,Speech\n",
        "train/synthetic.tsv": HEADER + "7.wav\t0.000\t1.25\tDog\n7.wav\t0.5\t3\tSpeech\n8.wav\t\t\t\n",
        "validation/validation.tsv": HEADER + f"{CLIP}.wav\t2.5\t10.0\tDog\n",
        "validation/test_dcase2018.tsv": HEADER + f"{CLIP}.wav\t2.500\t10\tDog\n",
        "eval/public.tsv": HEADER + "9.mp4\t0\t1\tSpeech\n",
        "durations.tsv": "filename\tduration\n7.wav\t10\n",
    }
    for name, text in tables.items():
        path = root / "metadata" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "video").mkdir()
    for name in ("7", "8", CLIP):
        (root / "video" / f"{name}.mp4").touch()
    return root


def test_lines_of_one_clip_are_its_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = read_dataset(layout(tmp_path))
    assert sorted(dataset.samples, key=lambda sample: sample.video_id) == [
        Sample(1, "7", (Event("Dog", 0, 1.25), Event("Speech", 0.5, 3)), split="train"),
        Sample(2, "8", (), split="train"),
        Sample(0, "9", (Event("Speech", 0, 1),), split="test"),
        Sample(3, CLIP, (Event("Dog", 2.5, 10),), split="val"),
    ]
    assert {video.video_id for video in dataset.videos if not video.path} == {"9"}
    said = capsys.readouterr().err
    assert said.count("tables without all of filename onset offset event_label are left out: weak.tsv") == 1
    found = audit(dataset)
    assert (found.samples_of_split, found.overlapping_samples) == ({"test": 1, "train": 2, "val": 1}, (1,))


def test_one_table_can_be_named_and_tells_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "mine.tsv").write_text(HEADER + "a.mp4\t1\t2\tDog\n")
    dataset = read_dataset(tmp_path, tmp_path / "mine.tsv")
    assert (dataset.samples[0].split, dataset.categories) == ("", ("Dog",))
    (tmp_path / "test.tsv").write_text(HEADER + "a\t1\t2\tDog\n")
    assert read_dataset(tmp_path).samples[0].split == "test"
    (tmp_path / "test.tsv").unlink()
    with pytest.raises(MissingPathError, match="no table of filename onset offset event_label"):
        read_dataset(tmp_path, format="desed")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.wav\t1\tx\tDog", r"line 2 \(a\.wav\): 'x' is not a number of seconds"),
        ("a.wav\t1\t\tDog", r"line 2 \(a\.wav\): '' is not a number of seconds"),
        ("a.wav\t2\t1\tDog", r"line 2 \(a\): event from 2\.0 s to 1\.0 s"),
        ("a.wav\t1\t2\t", r"line 2 \(a\): the class is empty"),
        ("a.wav\t1\t2", "line 2: 3 fields, the header has 4"),
        ("\t1\t2\tDog", "line 2: names no file"),
        (
            "a.wav\t1\t2\tDog\na.mp4\t\t\t",
            r"line 3 \(a\): no event, and .*line 2 says of the same .* an event",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "train.tsv").write_text(f"{HEADER}{line}\n")
    with pytest.raises(DatasetError, match=words):
        read_dataset(tmp_path)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    events = (Event('dog "loud"', 0.5, 2.0), Event("speech", 1.25, 7.0))
    clips = (Annotated("a", 10, events), Annotated("b", 10, ()), Annotated("c", 10, None))
    (tmp_path / "test.tsv").write_text(desed_text(clips))
    assert [(each.video_id, each.events) for each in read_dataset(tmp_path).samples] == [
        ("a", events),
        ("b", ()),
    ]
