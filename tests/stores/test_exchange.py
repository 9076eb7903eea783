"""The published AVE files come in, are checked against the annotations, and go out row for row."""

import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, USAGE, run
from avel.errors import ConfigError, DatasetError, MissingPathError, StoreError
from avel.stores.datasets.formats import read_dataset
from avel.stores.exchange import import_features
from avel.stores.export import export_features
from avel.stores.features import FeatureCache, write_features

ANNOTATIONS = """Bark&-a&good&0&10
Church bell&b&good&2&5
Male speech, man speaking&-a&good&0&10
Bark&_c&good&0&0
Church bell&d&bad&9&10
"""
VIDEO_OF_ROW = [0, 1, 0, 2, 3]
LABELS = [[0] * 10, [3, 3, 1, 1, 1, 3, 3, 3, 3, 3], [2] * 10, [3] * 10, [3] * 9 + [1]]
EVENTS = [0, 1, 2, 0, 1]


def save(path: Path, values: np.ndarray, key: str = "avadataset") -> None:
    with h5py.File(path, "w") as file:
        file[key] = values


def write_published(folder: Path, *, key: str = "avadataset", maps: bool = True) -> dict[str, np.ndarray]:
    """Writes files as they were published, of five samples; returns what they hold."""
    folder.mkdir(exist_ok=True)
    (folder / "Annotations.txt").write_text(ANNOTATIONS)
    random = np.random.default_rng(3)
    audio = random.random((4, 10, 128)).astype(np.float32).astype(np.float64)[VIDEO_OF_ROW]
    visual = random.random((4, 10, 7, 7, 512)).astype(np.float16).astype(np.float64)[VIDEO_OF_ROW]
    save(folder / "audio_feature.h5", audio, key)
    if maps:
        save(folder / "visual_feature.h5", visual, key)
    else:
        save(folder / "visual_feature_vec.h5", visual.mean(axis=(2, 3)), key)
    save(folder / "labels.h5", np.eye(4)[LABELS], key)
    save(folder / "mil_labels.h5", np.eye(4)[EVENTS].astype(np.float32), key)
    for split, order in (("train", [3, 0]), ("val", [1]), ("test", [4, 2])):
        save(folder / f"{split}_order.h5", np.array(order), "order")
    return {"audio": audio, "maps": visual}


def test_features_belong_to_videos_and_labels_to_samples(tmp_path: Path) -> None:
    given = write_published(tmp_path / "ave")
    result = import_features(tmp_path / "ave", tmp_path / "cache.h5")
    cache = FeatureCache.open(tmp_path / "cache.h5")
    assert (result.samples, result.videos, result.missing, cache.digest) == (5, 4, 0, result.digest)
    assert cache.video_ids == ("-a", "b", "_c", "d")
    assert cache.samples.video.tolist() == VIDEO_OF_ROW
    assert cache.labels().tolist() == LABELS
    assert cache.samples.events.category.tolist() == EVENTS
    assert cache.samples.split.tolist() == ["train", "val", "test", "train", "test"]
    assert cache.samples.leaked.tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(cache.f_a[cache.samples.video], given["audio"])
    np.testing.assert_array_equal(cache.read("maps")[cache.samples.video], given["maps"])
    np.testing.assert_allclose(cache.f_v[cache.samples.video], given["maps"].mean(axis=(2, 3)), rtol=1e-6)
    assert "f_a, f_v, cnn_a, cnn_v and maps of 5 samples in 4 clips" in result.headline()
    assert any("row order: right, the 1 videos" in finding for finding in result.findings)
    assert "labels.h5: as the annotations say" in result.findings


@pytest.mark.parametrize("key", ["avadataset", "dataset"])
def test_either_key_and_vectors_without_maps(tmp_path: Path, key: str) -> None:
    given = write_published(tmp_path / "ave", key=key, maps=False)
    result = import_features(tmp_path / "ave", tmp_path / "cache.h5")
    assert "maps" not in result.arrays
    wanted = given["maps"].mean(axis=(2, 3))
    np.testing.assert_allclose(FeatureCache.open(tmp_path / "cache.h5").f_v[VIDEO_OF_ROW], wanted, rtol=1e-6)


def test_every_head_can_be_trained_on_the_published_vectors(tmp_path: Path) -> None:
    """Audio 128 and visual 512 wide, which TACMA would add: it comes with its own projection."""
    write_published(tmp_path / "ave", maps=False)
    words = ["--quiet", "import-features", str(tmp_path / "ave"), str(tmp_path / "ave.h5")]
    assert run(cli, words) == DONE
    words = ["--quiet", "train-head", str(tmp_path / "ave.h5"), str(tmp_path / "run"), "--head", "tacma"]
    assert run(cli, [*words, "--epochs", "2"]) == DONE
    assert run(cli, ["--quiet", "evaluate", str(tmp_path / "run")]) == DONE


def test_goes_out_row_for_row_as_it_came_in(tmp_path: Path) -> None:
    write_published(tmp_path / "ave")
    import_features(tmp_path / "ave", tmp_path / "cache.h5")
    export_features(tmp_path / "cache.h5", tmp_path / "out")
    for path in sorted((tmp_path / "ave").glob("*.h5")):
        with h5py.File(path) as before, h5py.File(tmp_path / "out" / path.name) as after:
            assert list(before) == list(after)
            for key in before:
                np.testing.assert_array_equal(after[key][()], before[key][()], err_msg=path.name)
                assert after[key].chunks is None
    with h5py.File(tmp_path / "out" / "prob_label.h5") as file:
        np.testing.assert_allclose(file["avadataset"][1], [0, 0.3, 0, 0.7], rtol=1e-6)
    with h5py.File(tmp_path / "out" / "labels_closs.h5") as file:
        assert file["avadataset"][4].tolist() == [0] * 9 + [1]


@pytest.mark.parametrize("level", ["cnn", "encoder", None])
def test_the_level_chooses_the_vectors_and_must_be_in_the_cache(
    tmp_path: Path, level: Literal["cnn", "encoder"] | None
) -> None:
    given = write_published(tmp_path / "ave", maps=False)
    import_features(tmp_path / "ave", tmp_path / "cache.h5")
    cache = FeatureCache.open(tmp_path / "cache.h5")
    about: dict[str, Any] = {name: getattr(cache, name) for name in ("video_ids", "categories", "samples")}
    encoded, cnn = {"f_a": 2 * cache.f_a, "f_v": 2 * cache.f_v}, {"cnn_a": cache.f_a, "cnn_v": cache.f_v}
    write_features(tmp_path / "both.h5", arrays=encoded | cnn, **about)
    export_features(tmp_path / "both.h5", tmp_path / "both", level=level)
    with h5py.File(tmp_path / "both" / "audio_feature.h5") as file:
        factor = 2 if level == "encoder" else 1
        np.testing.assert_allclose(file["avadataset"], factor * given["audio"], rtol=1e-6)
    write_features(tmp_path / "lean.h5", arrays=encoded, **about)
    if level != "cnn":
        export_features(tmp_path / "lean.h5", tmp_path / "lean", level=level)
        return
    with pytest.raises(StoreError, match="no 'cnn_a' in this cache, only f_a, f_v"):
        export_features(tmp_path / "lean.h5", tmp_path / "lean", level=level)
    assert not (tmp_path / "lean").exists()


def test_rows_without_features_are_absent_by_name_and_nan_again_outside(tmp_path: Path) -> None:
    given = write_published(tmp_path / "ave")
    given["audio"][1] = np.nan
    save(tmp_path / "ave" / "audio_feature.h5", given["audio"])
    result = import_features(tmp_path / "ave", tmp_path / "cache.h5")
    cache = FeatureCache.open(tmp_path / "cache.h5")
    assert [(item.sample, item.video_id, item.reason) for item in cache.missing] == [
        (1, "b", "NaN in audio_feature.h5")
    ]
    assert result.missing == 1
    findings = export_features(tmp_path / "cache.h5", tmp_path / "out").findings
    assert any("1 row without features" in finding for finding in findings)
    with h5py.File(tmp_path / "out" / "audio_feature.h5") as file:
        assert np.isnan(file["avadataset"][1]).all()
        assert not np.isnan(file["avadataset"][[0, 2, 3, 4]]).any()
    with h5py.File(tmp_path / "out" / "val_order.h5") as file:
        assert file["order"][()].tolist() == []


@pytest.mark.parametrize("maps", [True, False])
def test_an_export_with_rows_missing_comes_in_again(tmp_path: Path, maps: bool) -> None:
    given = write_published(tmp_path / "ave", maps=maps)
    given["audio"][[0, 2]] = np.nan  # both rows of one video: a train row, and a test row that leaks
    save(tmp_path / "ave" / "audio_feature.h5", given["audio"])
    first = import_features(tmp_path / "ave", tmp_path / "cache.h5")
    export_features(tmp_path / "cache.h5", tmp_path / "out")
    again = import_features(tmp_path / "out", tmp_path / "again.h5", tmp_path / "ave")
    caches = [FeatureCache.open(tmp_path / name) for name in ("cache.h5", "again.h5")]
    assert (again.samples, again.missing) == (first.samples, first.missing) == (3, 2)
    assert caches[0].video_ids == caches[1].video_ids == ("b", "_c", "d")
    for name in caches[0].shapes:
        np.testing.assert_array_equal(caches[1].read(name), caches[0].read(name))
    assert "train_order.h5: the 1 row of the train split, 1 more without features" in again.findings
    assert "mil_labels.h5: as the annotations say" in again.findings
    save(tmp_path / "out" / "mil_labels.h5", np.eye(4)[[0, 0, 0, 0, 0]])
    with pytest.raises(DatasetError, match=r"mil_labels.h5: 2 of 3 rows differ"):
        import_features(tmp_path / "out", tmp_path / "third.h5", tmp_path / "ave")
    write_published(tmp_path / "out", maps=maps)
    save(tmp_path / "out" / "train_order.h5", np.array([0]), "order")
    with pytest.raises(DatasetError, match=r"train_order.h5: 1 row only in it, or only in the train split"):
        import_features(tmp_path / "out", tmp_path / "third.h5", tmp_path / "ave")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("audio_feature", (3, 9, 127)),
        ("visual_feature", (3, 4, 6, 5, 500)),
        ("visual_feature_vec", (3, 9, 511)),
    ],
)
def test_one_number_that_is_nan_is_a_sample_missing(
    tmp_path: Path, name: str, place: tuple[int, ...]
) -> None:
    given = write_published(tmp_path / "ave")
    arrays = {
        "audio_feature": given["audio"],
        "visual_feature": given["maps"],
        "visual_feature_vec": given["maps"].mean(axis=(2, 3)),
    }
    arrays[name][place] = np.nan
    for file in {"audio_feature", "visual_feature", name}:
        save(tmp_path / "ave" / f"{file}.h5", arrays[file])
    import_features(tmp_path / "ave", tmp_path / "cache.h5")
    cache = FeatureCache.open(tmp_path / "cache.h5")
    assert [(item.sample, item.reason) for item in cache.missing] == [(3, f"NaN in {name}.h5")]
    assert np.isfinite(cache.read("maps")).all()


def test_an_export_never_replaces_files_unasked(tmp_path: Path) -> None:
    write_published(tmp_path / "ave")
    import_features(tmp_path / "ave", tmp_path / "cache.h5")
    before = {path.name: path.read_bytes() for path in (tmp_path / "ave").iterdir()}
    (tmp_path / "ave" / "audio_feature.h5").rename(tmp_path / "audio_feature.h5")
    with pytest.raises(StoreError, match=r"holds visual_feature.h5, labels.h5, .* already\n.*--overwrite"):
        export_features(tmp_path / "cache.h5", tmp_path / "ave")
    assert not (tmp_path / "ave" / "audio_feature.h5").exists(), "nothing is written before it is refused"
    (tmp_path / "audio_feature.h5").rename(tmp_path / "ave" / "audio_feature.h5")
    assert {path.name: path.read_bytes() for path in (tmp_path / "ave").iterdir()} == before
    export_features(tmp_path / "cache.h5", tmp_path / "ave", overwrite=True)
    assert (tmp_path / "ave" / "prob_label.h5").exists()


def test_maps_of_another_cache_do_not_stay_beside_an_export(tmp_path: Path) -> None:
    write_published(tmp_path / "ave")
    import_features(tmp_path / "ave", tmp_path / "maps.h5")
    export_features(tmp_path / "maps.h5", tmp_path / "out")
    write_published(tmp_path / "lean", maps=False)
    import_features(tmp_path / "lean", tmp_path / "lean.h5")
    with pytest.raises(StoreError, match=r"out: holds visual_feature\.h5, and .*lean\.h5 no maps") as refused:
        export_features(tmp_path / "lean.h5", tmp_path / "out", overwrite=True)
    assert "move that file away" in refused.value.hint


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_published(tmp_path / name, maps=False)
    files = [*(tmp_path / "one").glob("*_feature*.h5"), tmp_path / "other" / "audio_feature.h5"]
    with pytest.raises(
        StoreError, match=r"one/audio_feature\.h5 and .*other/audio_feature\.h5 are both given"
    ):
        import_features(files, tmp_path / "cache.h5", tmp_path / "one")


def test_the_next_step_after_an_export_reads_its_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "ave")
    for width, needed in ((128, False), (64, True)):
        save(tmp_path / "ave" / "audio_feature.h5", np.zeros((5, 10, width)))
        cache, out = tmp_path / f"{width}.h5", tmp_path / str(width)
        import_features(tmp_path / "ave", cache, any_size=True)
        assert run(cli, ["export-features", str(cache), str(out)]) == DONE
        assert ("--dataset DATASET --any-size reads" in capsys.readouterr().err) == needed


def test_rows_of_another_size_are_refused_unless_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "ave"
    sizes = {
        "audio_feature.h5": (10, 512),
        "visual_feature.h5": (10, 512, 7, 7),
        "visual_feature_vec.h5": (10, 128),
    }
    for name, size in sizes.items():
        write_published(folder, maps=name != "visual_feature_vec.h5")
        if name == "visual_feature_vec.h5":
            (folder / "visual_feature.h5").unlink()
        save(folder / name, np.zeros((5, *size)))
        shown = re.escape(f"{name}: rows of {size}, the published file has")
        with pytest.raises(DatasetError, match=rf"{shown}(?s:.)*--any-size"):
            import_features(folder, tmp_path / "cache.h5")
    write_published(folder)
    save(folder / "audio_feature.h5", np.zeros((5, 10, 64)))
    assert import_features(folder, tmp_path / "cache.h5", any_size=True).arrays["f_a"] == (4, 10, 64)


def test_other_files_of_the_authors_are_known_and_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "ave"
    write_published(folder)
    others = ["labels_noisy.h5", "audio_feature_noisy.h5", "visual_feature_noisy.h5"]
    others += [f"{split}_order_match.h5" for split in ("train", "val", "test")]
    for name in others:
        (folder / name).touch()
    result = import_features(sorted(folder.glob("*.h5")), tmp_path / "cache.h5", folder)
    for name in others:
        assert any(finding.startswith(f"{name}: ") and "left out" in finding for finding in result.findings)
    findings = export_features(tmp_path / "cache.h5", tmp_path / "out").findings
    assert any("take the authors'" in finding and others[-1] in finding for finding in findings)


@pytest.mark.parametrize("videos", [1, 2])
def test_rows_in_another_order_are_refused_and_a_few_reported(tmp_path: Path, videos: int) -> None:
    """One video of `videos` with two rows differs between them."""
    folder = tmp_path / "ave"
    folder.mkdir()
    rows = [0, 1, 0, 1][: 2 * videos] if videos == 2 else [0, 1, 0]
    lines = (f"Bark&v{row}&good&{number}&10\n" for number, row in enumerate(rows))
    (folder / "Annotations.txt").write_text("".join(lines))
    audio = np.random.default_rng(0).random((2, 10, 8))[rows]
    save(folder / "visual_feature_vec.h5", audio)
    audio[2, 5, 7] += 1
    save(folder / "audio_feature.h5", audio)
    if videos == 1:
        with pytest.raises(DatasetError, match=r"1 of the 1 videos .* differ between them") as raised:
            import_features(folder, tmp_path / "cache.h5", any_size=True)
        assert "--dataset" in raised.value.hint
        assert not (tmp_path / "cache.h5").exists()
    else:
        result = import_features(folder, tmp_path / "cache.h5", any_size=True)
        assert any("1 of 2 videos differ between their rows" in finding for finding in result.findings)


def test_rows_with_infinities_are_missing_by_name(tmp_path: Path) -> None:
    given = write_published(tmp_path / "ave")
    given["audio"][1, 5, 7] = np.inf
    given["maps"][4, 2] = np.nan
    given["maps"][3, 6, [1, 2], 3, 9] = np.inf, -np.inf
    save(tmp_path / "ave" / "audio_feature.h5", given["audio"])
    save(tmp_path / "ave" / "visual_feature.h5", given["maps"])
    result = import_features(tmp_path / "ave", tmp_path / "cache.h5")
    cache = FeatureCache.open(tmp_path / "cache.h5")
    assert (result.missing, cache.video_ids) == (3, ("-a",))
    assert [(item.video_id, item.reason) for item in cache.missing] == [
        ("b", "infinity in audio_feature.h5, row 1, at (5, 7)"),
        ("_c", "infinity in visual_feature.h5, row 3, at (6, 1, 3, 9)"),
        ("d", "NaN in visual_feature.h5"),
    ]
    assert all(np.isfinite(cache.read(name)).all() for name in cache.shapes)


def test_a_number_too_large_for_float16_is_refused_not_made_an_infinity(tmp_path: Path) -> None:
    given = write_published(tmp_path / "ave")
    given["maps"][1, 5, 0, 0, 7] = 1e5
    save(tmp_path / "ave" / "visual_feature.h5", given["maps"])
    with pytest.raises(
        StoreError, match=r"maps: rows 0 to 3 hold a number above 65504, the largest float16"
    ) as refused:
        import_features(tmp_path / "ave", tmp_path / "cache.h5")
    assert "--maps-dtype float32" in refused.value.hint
    assert not (tmp_path / "cache.h5").exists()
    import_features(tmp_path / "ave", tmp_path / "cache.h5", maps_dtype="float32")
    assert FeatureCache.open(tmp_path / "cache.h5").read("maps").max() == 1e5
    with pytest.raises(ConfigError, match="float64"):
        import_features(tmp_path / "ave", tmp_path / "other.h5", maps_dtype="float64")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["external", "link", "soft link"])
def test_features_that_lie_in_another_file_are_not_read(tmp_path: Path, how: str) -> None:
    given = write_published(tmp_path / "ave", maps=False)
    save(tmp_path / "secret.h5", given["audio"])
    with h5py.File(tmp_path / "ave" / "audio_feature.h5", "w") as file:
        if how == "external":
            place = [(str(tmp_path / "secret.h5"), 0, 5 * 10 * 128 * 8)]
            file.create_dataset("avadataset", (5, 10, 128), np.float64, external=place)
        elif how == "link":
            file["avadataset"] = h5py.ExternalLink(tmp_path / "secret.h5", "avadataset")
        else:
            file["other"], file["avadataset"] = given["audio"], h5py.SoftLink("/other")
    with pytest.raises(StoreError, match=r"audio_feature\.h5: avadataset.* not (read|followed)"):
        import_features(tmp_path / "ave", tmp_path / "cache.h5")


def test_contradictions_with_the_annotations_are_errors(tmp_path: Path) -> None:
    folder = tmp_path / "ave"
    write_published(folder)
    save(folder / "mil_labels.h5", np.eye(4)[[1, 0, 2, 0, 1]])
    with pytest.raises(DatasetError, match=r"mil_labels.h5: 2 of 5 rows differ"):
        import_features(folder, tmp_path / "cache.h5")
    write_published(folder)
    save(folder / "audio_feature.h5", np.zeros((6, 10, 128)))
    with pytest.raises(DatasetError, match="6 rows, the annotations have 5"):
        import_features(folder, tmp_path / "cache.h5")
    save(folder / "audio_feature.h5", np.zeros((5, 9, 128)))
    with pytest.raises(DatasetError, match=r"segments differ: audio_feature.h5 9, visual_feature.h5 10"):
        import_features(folder, tmp_path / "cache.h5", any_size=True)
    save(folder / "audio_feature.h5", np.zeros((5, 128)))
    with pytest.raises(DatasetError, match="need 3 dimensions"):
        import_features(folder, tmp_path / "cache.h5")
    save(folder / "audio_feature.h5", np.zeros((5, 10, 128)), "features")
    with pytest.raises(StoreError, match="no array named avadataset or dataset, only features"):
        import_features(folder, tmp_path / "cache.h5")
    assert not (tmp_path / "cache.h5").exists()


def test_the_dataset_is_read_in_the_format_that_is_named(tmp_path: Path) -> None:
    """A folder in AVE's layout, whose videos a table describes as well: the option says which counts."""
    folder = tmp_path / "ave"
    write_published(folder, maps=False)
    rows = ["v0,Meow,0,2,train", "v1,Purr,1,3,val", "v2,Meow,0,4,test", "v3,,,,train", "v4,Purr,2,3,train"]
    (tmp_path / "events.csv").write_text("\n".join(["video,label,start,end,split", *rows, ""]))
    for number in range(5):
        (folder / f"v{number}.mp4").touch()
    sources = [str(folder / name) for name in ("audio_feature.h5", "visual_feature_vec.h5")]
    words = ["--quiet", "import-features", *sources, str(tmp_path / "cache.h5"), "--dataset", str(folder)]
    assert run(cli, [*words, "--format", "folder", "--annotations", str(tmp_path / "events.csv")]) == DONE
    cache = FeatureCache.open(tmp_path / "cache.h5")
    assert (cache.categories, cache.video_ids) == (("Meow", "Purr"), ("v0", "v1", "v2", "v3", "v4"))
    assert cache.samples.split.tolist() == ["train", "val", "test", "train", "train"]
    assert run(cli, [*words, "--overwrite", "--format", "ave"]) == DONE
    assert FeatureCache.open(tmp_path / "cache.h5").video_ids == ("-a", "b", "_c", "d")
    assert run(cli, [*words, "--overwrite", "--format", "aves"]) == USAGE


def test_what_is_absent_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "ave"
    write_published(folder)
    import_features(folder, tmp_path / "cache.h5")
    with pytest.raises(StoreError, match="exists"):
        import_features(folder, tmp_path / "cache.h5")
    (folder / "Annotations.txt").rename(tmp_path / "Annotations.txt")
    with pytest.raises(MissingPathError, match="--dataset"):
        import_features(folder, tmp_path / "other.h5")
    import_features(sorted(folder.iterdir()), tmp_path / "other.h5", tmp_path)
    (folder / "audio_feature.h5").unlink()
    with pytest.raises(MissingPathError, match=r"need audio_feature.h5"):
        import_features(folder, tmp_path / "third.h5", tmp_path)


@pytest.mark.shared
def test_labels_and_orders_of_ave_come_out_as_its_authors_made_them(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ave"
    shutil.copytree(data / "ave", folder)
    dataset = read_dataset(folder)
    place = {video.video_id: number for number, video in enumerate(dataset.videos)}
    video_of_row = [place[sample.video_id] for sample in dataset.samples]
    random = np.random.default_rng(0)
    for name, width in (("audio_feature", 8), ("visual_feature_vec", 16)):
        features = random.random((len(place), 10, width), np.float32)
        save(folder / f"{name}.h5", features[video_of_row].astype(np.float64))
    result = import_features(folder, tmp_path / "cache.h5", any_size=True)
    assert (result.samples, result.videos) == (4143, 4097)
    assert any("the 45 videos with several rows carry the same" in finding for finding in result.findings)
    assert "mil_labels.h5: as the annotations say" in result.findings
    assert "labels_closs.h5: as the annotations say" in result.findings
    export_features(tmp_path / "cache.h5", tmp_path / "out")
    for path in folder.glob("*.h5"):
        if "noisy" not in path.name:
            with h5py.File(path) as before, h5py.File(tmp_path / "out" / path.name) as after:
                (key,) = before
                assert after[key].dtype == before[key].dtype
                np.testing.assert_array_equal(after[key][()], before[key][()], err_msg=path.name)


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (130, 520):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "Annotations.txt").write_text("".join(f"Bark&v{n}&good&0&10\n" for n in range(count)))
        save(folder / "audio_feature.h5", np.ones((count, 10, 128)))
        sparse_maps(folder / "visual_feature.h5", (count, 10, 7, 7, 64), {})
        tracemalloc.start()
        import_features(folder, folder / "cache.h5", any_size=True)
        export_features(folder / "cache.h5", folder / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def sparse_maps(path: Path, shape: tuple[int, ...], filled: dict[int, np.ndarray]) -> None:
    """A contiguous float64 array of which only the filled rows take up disk."""
    with h5py.File(path, "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"avadataset", h5py.h5t.NATIVE_DOUBLE, space, creation)
        for row, values in filled.items():
            file["avadataset"][row] = values


@pytest.mark.shared
@pytest.mark.slow
def test_maps_of_8_gigabytes_come_in_within_a_fraction_of_that(data: Path, tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 6e9:
        pytest.skip("less than 6 GB of disk are free")
    shutil.copy(data / "ave" / "Annotations.txt", tmp_path)
    save(tmp_path / "audio_feature.h5", np.ones((4143, 10, 128)))
    row = np.random.default_rng(0).random((10, 7, 7, 512))
    sparse_maps(tmp_path / "visual_feature.h5", (4143, 10, 7, 7, 512), {0: row, 4142: row + 1})
    code = """
import re, sys
from pathlib import Path
from avel.stores.exchange import import_features
import_features(sys.argv[1], sys.argv[1] + "/cache.h5")
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 600 * 1024  # KiB; the vectors of all rows take 105 MB of it
    cache = FeatureCache.open(tmp_path / "cache.h5")
    assert cache.shapes["maps"] == (4097, 10, 7, 7, 512)
    ends = cache.read("maps", np.array([0, 4096]))
    np.testing.assert_array_equal(ends, np.stack([row, row + 1]).astype(np.float16))
    np.testing.assert_allclose(cache.f_v[4096], (row + 1).mean(axis=(1, 2)), rtol=1e-6)
    for path in tmp_path.glob("*.h5"):
        path.unlink()


def test_an_import_without_its_files_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError):
        import_features(tmp_path / "nothing", tmp_path / "new" / "cache.h5")
    assert not (tmp_path / "new").exists()
