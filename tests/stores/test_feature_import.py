"""`import_features` of anybody's vectors: what a cache holds of them, and which clips are refused and why."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, USAGE, run
from avel.errors import ConfigError, DatasetError, MissingPathError
from avel.stores.exchange import import_features
from avel.stores.feature_align import GivenFeatures
from avel.stores.features import FeatureCache

CLIPS = tuple(f"clip{number}" for number in range(12))
T = 10


def annotations(folder: Path) -> Path:
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    lines = [
        f"{name}.mp4,{'Bark' if number % 2 else 'Bell'},{number % 4},{number % 4 + 4},{splits[number]}"
        for number, name in enumerate(CLIPS)
    ]
    (folder / "events.csv").write_text("\n".join(["video,label,start,end,split", *lines, ""]))
    return folder / "events.csv"


def vectors(folder: Path, name: str, shape: tuple[int, ...], clips: tuple[str, ...] = CLIPS) -> Path:
    """Writes a .npy for each clip: the number of the clip in all, plus that of the feature / 100."""
    (folder / name).mkdir()
    for clip in clips:
        values = np.full(shape, float(clip.removeprefix("clip") or 0), np.float32)
        values += (np.arange(shape[0]) / 100).reshape(-1, *[1] * (len(shape) - 1))
        np.save(folder / name / f"{clip}.npy", values)
    return folder / name


def test_vectors_become_a_cache_on_which_every_head_can_be_trained(tmp_path: Path) -> None:
    audio, visual = vectors(tmp_path, "clap", (20, 5)), vectors(tmp_path, "clip", (T, 7))
    words = ["--quiet", "import-features", str(tmp_path / "mine.h5"), "--audio", str(audio)]
    words += ["--visual", str(visual), "--annotations", str(annotations(tmp_path)), "--audio-hop", "0.5"]
    assert run(cli, words) == DONE
    cache = FeatureCache.open(tmp_path / "mine.h5")
    assert (cache.video_ids, cache.categories, cache.missing) == (CLIPS, ("Bell", "Bark"), ())
    assert cache.samples.split.tolist() == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    assert {name: shape[1:] for name, shape in cache.shapes.items()} == {
        "f_a": (T, 5),
        "f_v": (T, 7),
        "cnn_a": (T, 5),
        "cnn_v": (T, 7),
    }
    mean_of_two = np.arange(12)[:, None] + (2 * np.arange(T) + 0.5) / 100
    np.testing.assert_allclose(cache.f_a, np.repeat(mean_of_two[..., None], 5, 2), rtol=1e-6)
    np.testing.assert_allclose(cache.f_v[3, :, 0], 3 + np.arange(T) / 100, rtol=1e-6)
    told = cache.provenance["encoder"]
    assert (told["kind"], told["audio"]["hop_seconds"], told["visual"]["files"]) == ("imported", 0.5, "clip")
    assert cache.labels()[1].tolist() == [2, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    for head in ("tacma", "bilstm"):
        words = ["--quiet", "train-head", str(tmp_path / "mine.h5"), str(tmp_path / head), "--head", head]
        assert run(cli, [*words, "--epochs", "1"]) == DONE


def test_maps_become_maps_and_their_mean(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "audio": vectors(tmp_path, "a", (T, 5)),
        "visual": vectors(tmp_path, "v", (T, 2, 3, 4)),
    }
    import_features(None, tmp_path / "mine.h5", annotations=annotations(tmp_path), **given)
    cache = FeatureCache.open(tmp_path / "mine.h5")
    assert cache.shapes["maps"] == (12, T, 2, 3, 4)
    assert cache.read("maps").dtype == np.float16
    np.testing.assert_allclose(cache.f_v[5, :, 3], 5 + np.arange(T) / 100, rtol=1e-6)
    with pytest.raises(ConfigError, match="audio features are vectors, these are maps"):
        import_features(
            None,
            tmp_path / "other.h5",
            annotations=annotations(tmp_path),
            audio=given["visual"],
            visual=given["audio"],
        )


def spoil(folder: Path, clip: str, values: np.ndarray | None) -> None:
    path = folder / f"{clip}.npy"
    path.unlink() if values is None else np.save(path, values)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (None, "1 of 12 clips: no features, the first is 'clip7'"),
        (np.full((T, 5), np.nan), r"1 of 12 clips: NaN or infinity, the first is 'clip7': nan at \(0, 0\)"),
        (np.zeros((5, T)), r"1 of 12 clips: axes look transposed, the first is 'clip7': 5x10 is \(D, n\)"),
        (
            np.zeros((9, 5)),
            "1 of 12 clips: another number of features, the first is 'clip7': 9 features, not 10",
        ),
        (np.zeros((T, 6)), "1 of 12 clips: another width, the first is 'clip7': 10x6, most have 5 behind"),
        (np.zeros(T), "1 of 12 clips: cannot be read, the first is 'clip7'"),
        (np.array(["text"]), "1 of 12 clips: cannot be read, the first is 'clip7'"),
    ],
)
def test_a_clip_that_cannot_be_used_is_refused_or_left_out_by_name(
    spoiled: np.ndarray | None, message: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "audio": vectors(tmp_path, "a", (T, 5)),
        "visual": vectors(tmp_path, "v", (T, 7)),
    }
    given["annotations"] = annotations(tmp_path)
    spoil(tmp_path / "a", "clip7", spoiled)
    np.save(tmp_path / "v" / "stranger.npy", np.zeros((T, 7)))
    with pytest.raises(DatasetError, match=message) as refused:
        import_features(None, tmp_path / "mine.h5", **given)
    assert "1 of 13 ids are of no clip of the dataset, the first is 'stranger'" in refused.value.message
    assert "--leave-out" in refused.value.hint
    assert not (tmp_path / "mine.h5").exists()
    result = import_features(None, tmp_path / "mine.h5", leave_out=True, **given)
    cache = FeatureCache.open(tmp_path / "mine.h5")
    assert (result.videos, result.missing, len(result.findings)) == (11, 1, 2)
    assert [item.video_id for item in cache.missing] == ["clip7"]
    assert cache.missing[0].reason.startswith("audio: ")
    assert cache.f_v[7, 0, 0] == 8


def test_features_that_end_early_are_counted_with_the_first(tmp_path: Path) -> None:
    given: dict[str, Any] = {"annotations": annotations(tmp_path), "visual": vectors(tmp_path, "v", (T, 7))}
    audio = GivenFeatures(vectors(tmp_path, "a", (20, 5)), hop_seconds=0.5)
    for clip in CLIPS[4:6]:
        spoil(audio.path, clip, np.zeros((12, 5)))
    with pytest.raises(
        DatasetError, match="2 of 12 clips: ends before the grid, the first is 'clip4': ends at 6 s"
    ):
        import_features(None, tmp_path / "mine.h5", audio=audio, **given)
    wrong = GivenFeatures(audio.path)
    with pytest.raises(DatasetError, match="another number of features") as refused:
        import_features(None, tmp_path / "mine.h5", audio=wrong, **given)
    assert "--audio-hop" in refused.value.hint


def test_rows_are_samples_where_a_file_names_no_ids(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((12, T, 5))
    np.save(tmp_path / "a.npy", rows)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["x"] = rows[:11]
    given: dict[str, Any] = {"annotations": annotations(tmp_path), "audio": tmp_path / "a.npy"}
    with pytest.raises(DatasetError, match=r"v\.h5: 11 rows without ids, and the dataset has 12 samples"):
        import_features(None, tmp_path / "mine.h5", visual=tmp_path / "v.h5", **given)
    import_features(None, tmp_path / "mine.h5", visual=tmp_path / "a.npy", **given)
    np.testing.assert_allclose(FeatureCache.open(tmp_path / "mine.h5").f_v, rows, rtol=1e-6)


def test_another_grid_and_a_dataset_of_any_format(tmp_path: Path) -> None:
    (tmp_path / "Annotations.txt").write_text("".join(f"Bark&{name}&good&0&4\n" for name in CLIPS))
    given: dict[str, Any] = {
        "audio": vectors(tmp_path, "a", (4, 5)),
        "visual": vectors(tmp_path, "v", (4, 7)),
    }
    import_features(None, tmp_path / "mine.h5", tmp_path, segments=4, segment_seconds=2.0, **given)
    cache = FeatureCache.open(tmp_path / "mine.h5")
    assert (cache.grid_segments, cache.segment_seconds) == (4, 2.0)
    assert cache.labels()[0].tolist() == [0, 0, 1, 1]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    audio, events = vectors(tmp_path, "a", (T, 5)), annotations(tmp_path)
    with pytest.raises(ConfigError, match="there are no visual ones"):
        import_features(None, tmp_path / "mine.h5", annotations=events, audio=audio)
    with pytest.raises(ConfigError, match="both AVE files and"):
        import_features(audio, tmp_path / "mine.h5", annotations=events, audio=audio)
    with pytest.raises(ConfigError, match="neither AVE files nor"):
        import_features(None, tmp_path / "mine.h5", annotations=events)
    with pytest.raises(MissingPathError, match="without annotations"):
        import_features(None, tmp_path / "mine.h5", audio=audio, visual=audio)
    words = ["--quiet", "import-features", str(tmp_path / "mine.h5"), "--audio", str(audio)]
    assert run(cli, [*words, "--visual-hop", "1"]) == USAGE
    (tmp_path / "mine.h5").touch()
    assert run(cli, [*words, "--visual", str(audio), "--annotations", str(events)]) == ERROR
