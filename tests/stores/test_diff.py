"""Two caches compared clip by clip: cosine, largest difference, samples and videos that one lacks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avel.errors import StoreError
from avel.stores.cached_samples import Missing
from avel.stores.datasets.labels import ClassTable
from avel.stores.datasets.sample import MODALITIES
from avel.stores.diff import diff
from avel.stores.features import write_features
from tests.samples import cached_samples, events_of


def write(path: Path, names: tuple[str, ...], values: dict[str, np.ndarray], **changes: object) -> Path:
    count = len(names)
    samples = cached_samples(np.zeros((count, 2), np.int64), 1)
    given = {"video_ids": names, "categories": ("bark",), "samples": samples, "arrays": values}
    write_features(path, **(given | changes))
    return path


def vectors(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {name: random.normal(size=(count, 2, 4)).astype(np.float32) for name in ("f_a", "f_v")}


def test_a_cache_is_the_same_as_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", ("a", "b"), vectors(2))
    found = diff(path, path)
    assert found.same
    assert (found.arrays["f_a"].equal, found.arrays["f_a"].lowest_cosine) == (2, pytest.approx(1))
    assert found.arrays["f_a"].worst == ()


def test_a_turned_vector_and_a_moved_number_are_found(tmp_path: Path) -> None:
    first = vectors(130)
    names = tuple(f"v{number}" for number in range(130))
    second = {name: values.copy() for name, values in first.items()}
    second["f_v"][100, 1] = -first["f_v"][100, 1]
    second["f_a"][3, 0, 2] += 0.5
    order = np.random.default_rng(0).permutation(130)
    shuffled = {name: values[order] for name, values in second.items()}
    found = diff(
        write(tmp_path / "a.h5", names, first),
        write(tmp_path / "b.h5", tuple(names[place] for place in order), shuffled),
    )
    turned, moved = found.arrays["f_v"], found.arrays["f_a"]
    assert not found.same
    assert (turned.clips, turned.equal, turned.lowest_cosine) == (130, 129, pytest.approx(-1))
    assert [clip.video_id for clip in turned.worst] == ["v100"]
    assert turned.mean_cosine == pytest.approx((259 - 1) / 260)
    assert turned.largest_difference == pytest.approx(2 * np.abs(first["f_v"][100, 1]).max())
    assert [clip.video_id for clip in moved.worst] == ["v3"]
    assert moved.largest_difference == pytest.approx(0.5, rel=1e-5)
    u, w = first["f_a"][3, 0].astype(float), second["f_a"][3, 0].astype(float)
    assert moved.lowest_cosine == pytest.approx(u @ w / np.sqrt((u @ u) * (w @ w)))
    assert moved.scale == pytest.approx(np.abs(first["f_a"]).mean(), rel=1e-6)


def test_other_modalities_and_other_classes_are_found(tmp_path: Path) -> None:
    arrays, names = vectors(2), ("a", "b")
    events = events_of([[0, 0], [-1, -1]], 1)
    audible = replace(events, modality=np.array([MODALITIES.index("audio")]))
    known, nothing = np.array([False, True]), np.zeros(0, np.int64)
    barks = ClassTable(known, np.array([1]), np.array([0]))
    given = {
        "a": {"events": events, "classes": barks},
        "heard": {"events": audible, "classes": barks},
        "silent": {"events": events, "classes": ClassTable(known, nothing, nothing)},
        "unknown": {"events": events},
    }
    paths = {
        name: write(
            tmp_path / f"{name}.h5", names, arrays, samples=cached_samples([[0, 0], [-1, -1]], 1, **each)
        )
        for name, each in given.items()
    }
    differ = {name: diff(paths["a"], path).events_differ for name, path in paths.items()}
    assert differ == {"a": (), "heard": (0,), "silent": (1,), "unknown": (1,)}
    assert not diff(paths["a"], paths["heard"]).same


def test_what_one_cache_lacks_is_named(tmp_path: Path) -> None:
    first, second = vectors(3), vectors(3)
    second["cnn_a"] = np.zeros((3, 2, 8), np.float32)
    samples = cached_samples([[0, 0], [0, 1], [0, 0]], 1, split=["train", "train", "test"])
    found = diff(
        write(
            tmp_path / "a.h5", ("a", "b", "c"), first, provenance={"encoder": {"digest": "1", "kind": "run"}}
        ),
        write(
            tmp_path / "b.h5",
            ("a", "b", "d"),
            second,
            samples=samples,
            missing=(Missing(7, "c", "damaged"), Missing(-1, "e", "empty"), Missing(-1, "f", "no-video")),
            provenance={
                "encoder": {"digest": "2", "kind": "run"},
                "store": "elsewhere",
                "options": "--device cuda",
                "source_runs": ["moved/run"],
            },
        ),
    )
    assert (found.only_in_a, found.only_in_b) == (("c",), ("d",))
    assert (found.missing_in_a, found.missing_in_b) == (
        {},
        {"c": "damaged", "e": "empty", "f": "no-video"},
    )
    assert found.incomparable == {"cnn_a": "absent and (2, 8)"}
    assert (found.samples_differ, found.events_differ, found.splits_differ) == ((2,), (1,), (2,))
    assert found.provenance_differs == {"encoder.digest": ("1", "2")}
    assert not found.same


def test_caches_of_the_same_features_are_not_the_same_where_their_samples_or_segments_differ(
    tmp_path: Path,
) -> None:
    arrays, label, names = vectors(2), np.zeros((2, 2), np.int64), ("a", "b")
    first = write(tmp_path / "a.h5", names, arrays)
    others = {
        "one sample fewer": {"samples": cached_samples(label[:1], 1)},
        "samples of each other's video": {"samples": cached_samples(label, 1, video=[1, 0])},
        "another tag": {"samples": cached_samples(label, 1, tag=["", "seen"])},
        "another length": {"lengths": np.array([2, 1])},
        "other segments": {"segment_seconds": 0.5},
    }
    found = {
        what: diff(first, write(tmp_path / "b.h5", names, arrays, **each)) for what, each in others.items()
    }
    assert [each.samples_differ for each in found.values()] == [(1,), (0, 1), (1,), (), ()]
    assert [each.lengths_differ for each in found.values()] == [(), (), (), ("b",), ()]
    assert found["other segments"].incomparable == dict.fromkeys(
        ("f_a", "f_v"), "segments of 1 s and of 0.5 s"
    )
    assert not any(each.same for each in found.values())
    assert found["another length"].headline() == "A and B differ: 1 clip of another length"


def test_zero_vectors_agree_and_no_shared_video_is_an_error(tmp_path: Path) -> None:
    zero = {name: np.zeros_like(values) for name, values in vectors(1).items()}
    path = write(tmp_path / "a.h5", ("a",), zero)
    assert diff(path, path).arrays["f_a"].lowest_cosine == 1
    with pytest.raises(StoreError, match="no video is in both"):
        diff(path, write(tmp_path / "b.h5", ("b",), zero))
