"""The feature cache: what is written is read, and only a whole file is ever there."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from avel.errors import MissingPathError, StoreError
from avel.stores.cached_samples import CachedSamples, Missing
from avel.stores.datasets.labels import ClassTable
from avel.stores.features import FeatureCache, write_features
from tests.samples import cached_samples, events_of

LABEL = [[0, 0, 2, 2], [2, 1, 1, 2], [2, 2, 2, 0]]


def samples(label: object = LABEL, **changes: object) -> CachedSamples:
    given = {
        "number": [3, 4, 9],
        "video": [0, 1, 1],
        "split": ["train", "val", "test"],
        "leaked": [False, True, False],
        "tag": ["", "seen", "unseen"],
    }
    return cached_samples(label, 2, **(given | changes))


def write(path: Path, **changes: object) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {
        "f_a": random.normal(size=(2, 4, 5)).astype(np.float32),
        "f_v": random.normal(size=(2, 4, 5)).astype(np.float32),
        "maps": random.normal(size=(2, 4, 7, 7, 3)).astype(np.float16),
    }
    given = {
        "video_ids": ("-abc", "_d"),
        "categories": ("Church bell", "Male speech, man speaking"),
        "samples": samples(),
        "arrays": arrays,
        "missing": (Missing(7, "gone", "no such file"),),
        "provenance": {"encoder": "0123"},
    }
    write_features(path, **(given | changes))
    return arrays


def test_reads_what_was_written(tmp_path: Path) -> None:
    arrays = write(tmp_path / "features.h5")
    cache = FeatureCache.open(tmp_path / "features.h5")
    assert (cache.grid_segments, cache.classes, cache.video_ids) == (4, 3, ("-abc", "_d"))
    assert cache.categories == ("Church bell", "Male speech, man speaking")
    assert cache.missing == (Missing(7, "gone", "no such file"),)
    assert cache.provenance == {"encoder": "0123"}
    assert cache.labels().tolist() == LABEL
    assert cache.samples.number.tolist() == [3, 4, 9]
    assert cache.samples.video_labels().tolist() == [0, 1, 0]
    assert cache.samples.split.tolist() == ["train", "val", "test"]
    assert cache.samples.leaked.tolist() == [False, True, False]
    assert cache.samples.tag.tolist() == ["", "seen", "unseen"]
    assert cache.samples.take(np.array([2, 0])).tag.tolist() == ["unseen", ""]
    for name, values in arrays.items():
        np.testing.assert_array_equal(cache.read(name), values)
    np.testing.assert_array_equal(cache.read("maps", np.array([1, 0, 1])), arrays["maps"][[1, 0, 1]])


def test_files_of_the_clips_are_a_column_beside_the_provenance(tmp_path: Path) -> None:
    path, known = tmp_path / "features.h5", "0123" * 16
    write(path, sources={"_d": known, "gone": "4567" * 16})
    cache = FeatureCache.open(path)
    assert (cache.sources, cache.provenance) == ({"_d": known}, {"encoder": "0123"})
    with h5py.File(path, "r+") as file:
        assert file["source_sha256"].asstr()[()].tolist() == ["", known]
        file["source_sha256"][1] = known.replace("0", "8", 1)
    with pytest.raises(StoreError, match="does not match its digest"):
        FeatureCache.open(path)


def test_texts_come_back_as_they_are(tmp_path: Path) -> None:
    path, ids = tmp_path / "features.h5", ("a\0b", "é\n")
    write(path, video_ids=ids, samples=samples(tag=["", "sé", "a"]))
    cache = FeatureCache.open(path)
    assert (cache.video_ids, cache.samples.tag.tolist()) == (ids, ["", "sé", "a"])


def test_rows_in_a_row_are_those_read_one_by_one(tmp_path: Path) -> None:
    arrays = write(tmp_path / "features.h5")
    cache = FeatureCache.open(tmp_path / "features.h5")
    for places in ([], [1], [0, 1], [1, 0], [1, 1], [-1], [-2, -1]):
        np.testing.assert_array_equal(cache.read("f_a", np.array(places, np.int64)), arrays["f_a"][places])


def test_arrays_are_contiguous_with_a_checksum_for_each_row(tmp_path: Path) -> None:
    write(tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5") as file:
        assert file["f_a"].chunks is None
        assert file["f_a"].dtype == np.float32
        assert file["maps"].chunks is None
        assert file["maps"].dtype == np.float16
        assert file["maps_crc32c"].shape == (2,)


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    names = ["a.h5", "b.h5", "c.h5", "d.h5"]
    write(tmp_path / names[0])
    write(tmp_path / names[1])
    write(tmp_path / names[2], provenance={"encoder": "4567"})
    arrays = write(tmp_path / names[3])
    arrays["f_v"][1, 2, 3] += 1
    write(tmp_path / names[3], arrays=arrays)
    digests = [FeatureCache.open(tmp_path / name).digest for name in names]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_flipped_bit_in_the_maps_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    arrays = write(path)
    raw = bytearray(path.read_bytes())
    place = raw.find(arrays["maps"][1].tobytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="maps is damaged"):
        FeatureCache.open(path).read("maps")


def test_nothing_is_left_of_a_write_that_failed(tmp_path: Path) -> None:
    class Breaks:
        shape = (2, 4, 5)

        def __getitem__(self, key: slice) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "features.h5", arrays={"f_a": Breaks(), "f_v": Breaks()})
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"f_v is \(3, 4, 5\)"):
        write(tmp_path / "a.h5", arrays={"f_a": np.zeros((2, 4, 5)), "f_v": np.zeros((3, 4, 5))})
    with pytest.raises(StoreError, match="a sample is of video 2, there are 2"):
        write(tmp_path / "a.h5", samples=samples(video=[0, 1, 2]))
    with pytest.raises(StoreError, match="an event is of class 2, there are 2"):
        write(tmp_path / "a.h5", samples=samples(events=events_of([[2, 2]], 3)))
    with pytest.raises(StoreError, match="an event is of sample 3, there are 3"):
        write(tmp_path / "a.h5", samples=replace(samples(), events=events_of([[2], [2], [2], [0]], 2)))
    with pytest.raises(StoreError, match="of a sample whose events are not known"):
        write(tmp_path / "a.h5", samples=replace(samples(), known=np.array([True, False, True])))
    with pytest.raises(StoreError, match="holds f_a, f_v"):
        write(tmp_path / "a.h5", arrays={"f_a": np.zeros((2, 4, 5))})


def test_errors_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="cache-features"):
        FeatureCache.open(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        FeatureCache.open(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["avadataset"] = np.zeros(3)
    with pytest.raises(StoreError, match="format None"):
        FeatureCache.open(tmp_path / "other.h5")
    write(tmp_path / "features.h5")
    with pytest.raises(StoreError, match="no 'cnn_a' in this cache"):
        FeatureCache.open(tmp_path / "features.h5").read("cnn_a")


def test_classes_without_times_and_modalities_are_kept_and_checked(tmp_path: Path) -> None:
    label = [[-1] * 4, [2, 1, 1, 2], [-1] * 4]
    events = replace(events_of(label, 2), modality=np.array([1]))
    one = ClassTable(np.array([True, False, False]), np.array([0]), np.array([1]))
    write(tmp_path / "c.h5", samples=samples(label, events=events, classes=one))
    held = FeatureCache.open(tmp_path / "c.h5").samples
    assert held.events.modality.tolist() == [1]
    assert held.labelled.tolist() == [True, True, False]
    assert held.video_labels().tolist() == [1, 1, -1]
    assert held.video_classes(2).tolist() == [[0, 1], [0, 1], [0, 0]]
    assert held.take(np.array([1, 0])).video_classes(2).tolist() == [[0, 1], [0, 1]]
    for changes, says in (
        ({"events": replace(events, modality=np.array([3]))}, "an event is of modality 3"),
        ({"classes": replace(one, category=np.array([2]))}, "a sample's class is of class 2"),
        ({"classes": replace(one, known=np.array([True, True, False]))}, "whose events are known"),
        ({"classes": replace(one, sample=np.array([2]))}, "whose classes are not"),
    ):
        given = {"events": events, "classes": one} | changes
        with pytest.raises(StoreError, match=says):
            write(tmp_path / "d.h5", samples=samples(label, **given))
