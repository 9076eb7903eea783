"""LLP's files, as its authors lay them out."""

from dataclasses import asdict
from pathlib import Path

import pytest

from avel.errors import DatasetError
from avel.stores.datasets.audit import audit
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event

FILES = {
    "AVVP_train.csv": "filename\tevent_labels\n-BjCEufrlXm_20_30\tSpeech,Dog\n7nSYwyaP4QE_50_60\tBanjo\n",
    "AVVP_val_pd.csv": "filename\tevent_labels\n4O9rI-FpqLg_10_20\tDog,Frying_(food)\n",
    "AVVP_test_pd.csv": "filename\tevent_labels\n4YdbENYcIyE_23_33\tDog\nJGdkVx81S-k_20_30\tBlender\n",
    "AVVP_eval_audio.csv": "filename\tonset\toffset\tevent_labels\n4O9rI-FpqLg_10_20\t0\t4\tDog\n"
    "4YdbENYcIyE_23_33\t8\t10\tDog\n4YdbENYcIyE_23_33\t9\t0\tSpeech\n",
    "AVVP_eval_visual.csv": "filename\tonset\toffset\tevent_labels\n4O9rI-FpqLg_10_20\t2\t10\tFrying_(food)\n"
    "4YdbENYcIyE_23_33\t0\t10\tDog\nin_no_list__0_10\t0\t10\tDog\n",
}


def llp_folder(root: Path, **changed: str) -> Path:
    """The authors' folder, with videos of two clips and of none; `changed` replaces files by stem."""
    media = root / "data" / "LLP_dataset" / "video"
    media.mkdir(parents=True)
    for name in ("-BjCEufrlXm.mp4", "4YdbENYcIyE_23_33.mp4", "another.mp4"):
        (media / name).touch()
    for name, text in FILES.items():
        (root / "data" / name).write_text(changed.get(Path(name).stem, text))
    return root


def test_clips_have_classes_in_train_and_events_of_each_modality_elsewhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = read_dataset(llp_folder(tmp_path))
    said = capfd.readouterr().err
    assert "left out: 1 event with the end before the onset; the first is" in said
    assert "AVVP_eval_audio.csv: line 4" in said
    assert "events of 1 clip in neither val nor test are left out" in said
    assert dataset.categories == ("Speech", "Dog", "Banjo", "Frying_(food)")
    assert [(each.video_id, each.split, each.categories) for each in dataset.samples] == [
        ("-BjCEufrlXm_20_30", "train", ("Speech", "Dog")),
        ("7nSYwyaP4QE_50_60", "train", ("Banjo",)),
        ("4O9rI-FpqLg_10_20", "val", None),
        ("4YdbENYcIyE_23_33", "test", None),
        ("JGdkVx81S-k_20_30", "test", None),
    ]
    assert [each.events for each in dataset.samples] == [
        None,
        None,
        (Event("Dog", 0, 4, modality="audio"), Event("Frying_(food)", 2, 10, modality="visual")),
        (Event("Dog", 8, 10, modality="audio"), Event("Dog", 0, 10, modality="visual")),
        (),
    ]
    media = tmp_path / "data" / "LLP_dataset" / "video"
    assert [video.path for video in dataset.videos] == [
        str(media / "-BjCEufrlXm.mp4"),
        "",
        "",
        str(media / "4YdbENYcIyE_23_33.mp4"),
        "",
    ]
    found = audit(dataset)
    assert (found.unknown_samples, found.empty_samples, len(found.missing_files)) == ((0, 1), (4,), 3)
    assert found.extra_files == (str(media / "another.mp4"),)
    assert found.overlapping_samples == (2,)
    assert (found.weak_samples, found.events_of_modality) == ((0, 1), {"audio": 2, "visual": 2})
    text = " ".join(found.remarks())
    assert "sample numbers 0, 1: the classes are known, but not when they are; --supervision weak" in text
    assert Dataset.from_tables(dataset.tables()) == dataset


def test_the_audit_has_the_baselines_of_video_parsing(tmp_path: Path) -> None:
    """
    Val: a dog heard for 4 of 10 s, frying seen for 8. No event: right in audio-visual alone. Both classes
    everywhere: audio 8/14 and 0, visual 0 and 16/18, audio-visual 0 and 0.
    Test: a dog heard for 2 s and seen for 10, so both for 2: 4/12, 1 and 4/12; and a clip without event.
    """
    found = audit(read_dataset(llp_folder(tmp_path)))
    assert found.trivial_baselines == {}
    figures = {split: list(asdict(each).values()) for split, each in found.parsing_baselines.items()}
    assert figures == {
        "val": pytest.approx([100 / 3, 100 / 3 * (8 / 14 / 2 + 16 / 18 / 2)]),
        "test": pytest.approx([100 / 2, 100 / 2 * ((1 / 3 + 1 + 1 / 3) / 3 + 1)]),
    }
    own_lengths = read_dataset(llp_folder(tmp_path / "own"), longest_seconds=10)
    assert audit(own_lengths).parsing_baselines == found.parsing_baselines


def test_lines_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    head = "filename\tonset\toffset\tevent_labels\n"
    for number, (text, words) in enumerate(
        {
            head + "x\t0\tlate\tDog\n": r"audio.csv: line 2 \(x\): 'late' is not a number of seconds",
            head + "x\t0\t4\n": r"audio.csv: line 2: 3 fields, the header has 4",
            "filename,onset,offset\n": r"audio.csv: no column filename; it has filename,onset,offset",
        }.items()
    ):
        with pytest.raises(DatasetError, match=words):
            read_dataset(llp_folder(tmp_path / str(number), AVVP_eval_audio=text))
    twice = FILES["AVVP_train.csv"] + "4YdbENYcIyE_23_33\tDog\n"
    with pytest.raises(DatasetError, match=r"test_pd.csv: line 2 .* stands in .*train.csv: line 4 as well"):
        read_dataset(llp_folder(tmp_path / "twice", AVVP_train=twice))
