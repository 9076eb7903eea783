"""`import_features` of anybody's vectors: what a cache holds of them, and which clips are refused and why."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, USAGE, run
from avel.errors import BusyError, ConfigError, DatasetError, MissingPathError, StoreError, TrainingError
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.train import sweep, train_head
from avel.heads.training.records import read_trials
from avel.stores.cache_lock import lock_cache, parts_folder
from avel.stores.diff import diff
from avel.stores.exchange import import_features
from avel.stores.feature_align import GivenFeatures
from avel.stores.features import FeatureCache
from avel.stores.fenced import names_in
from avel.stores.inspection import inspect
from avel.stores.runs import Run
from avel.views.inside import look_inside
from avel.views.reading import read_run

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


def test_rows_without_ids_count_a_last_row_of_an_earlier_video_when_they_are_added(tmp_path: Path) -> None:
    names = ("clip0", "clip1", "clip0")
    (tmp_path / "Annotations.txt").write_text("".join(f"Bark&{name}&good&0&4\n" for name in names))
    rows = np.random.default_rng(0).standard_normal((3, T, 4))
    np.save(tmp_path / "rows.npy", rows)
    cache, path = tmp_path / "mine.h5", tmp_path / "rows.npy"
    import_features(None, cache, tmp_path, audio=path, visual=path)
    import_features(None, cache, audio=GivenFeatures(path, name="clap"))
    np.testing.assert_allclose(FeatureCache.open(cache).read("clap"), rows[:2], rtol=1e-6)


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
    import_features(None, tmp_path / "short.h5", tmp_path, segments=4, segment_seconds=0.9, **given)
    assert FeatureCache.open(tmp_path / "short.h5").segment_seconds == 0.9  # no multiple of 1/16 s


def test_clips_keep_the_lengths_that_their_annotations_state(tmp_path: Path) -> None:
    """Four clips of 3 and of 5 s: features end where the clip does, and T is that of the longest."""
    seconds = {f"clip{number}": 3 + 2 * (number % 2) for number in range(4)}
    subsets = ("training", "validation", "testing", "training")
    database = {
        name: {
            "subset": subset,
            "duration": length,
            "annotations": [{"segment": [1, 2], "label": "Bark"}],
        }
        for (name, length), subset in zip(seconds.items(), subsets, strict=True)
    }
    dataset = tmp_path / "UnAV-100"
    (dataset / "annotations").mkdir(parents=True)
    (dataset / "raw_videos").mkdir()
    (dataset / "annotations" / "unav100_annotations.json").write_text(json.dumps({"database": database}))
    for name in seconds:
        (dataset / "raw_videos" / f"{name}.mp4").touch()
    for modality, width in (("audio", 6), ("visual", 7)):
        (tmp_path / modality).mkdir()
        for name, length in seconds.items():
            np.save(tmp_path / modality / f"{name}.npy", np.ones((length, width), np.float32))
    given = {modality: tmp_path / modality for modality in ("audio", "visual")}
    import_features(None, tmp_path / "mine.h5", dataset, **given)
    cache = FeatureCache.open(tmp_path / "mine.h5")
    assert cache.grid_segments == 5
    assert dict(zip(cache.video_ids, cache.lengths.tolist(), strict=True)) == seconds
    np.testing.assert_array_equal(cache.f_a[..., 0].sum(1), cache.lengths)  # ones, then zeros
    (tmp_path / "audio" / "clip1.npy").unlink()
    np.save(tmp_path / "audio" / "clip1.npy", np.ones((4, 6), np.float32))
    with pytest.raises(DatasetError, match="another number of features, the first is 'clip1'"):
        import_features(None, tmp_path / "mine.h5", dataset, overwrite=True, **given)


def test_features_stand_beside_others_under_their_name(tmp_path: Path) -> None:
    """Heads read them alone and joined; what was trained on the cache's own stays valid."""
    path, events = tmp_path / "mine.h5", annotations(tmp_path)
    audio, visual = vectors(tmp_path, "a", (T, 5)), vectors(tmp_path, "v", (T, 7))
    maps = vectors(tmp_path, "m", (T, 2, 2, 3))
    import_features(None, path, annotations=events, audio=audio, visual=visual)
    before = FeatureCache.open(path)
    train_head(path, tmp_path / "before", head="mlp", epochs=1)
    words = ["--quiet", "import-features", str(path), "--audio", str(audio), "--audio-name", "clap"]
    assert run(cli, [*words, "--visual", str(maps), "--visual-name", "dino:s"]) == DONE
    cache = FeatureCache.open(path)
    assert cache.digest == before.digest
    assert cache.shapes == before.shapes | {"clap": (12, T, 5), "dino:s": (12, T, 2, 2, 3)}
    np.testing.assert_array_equal(cache.read("clap"), cache.f_a)
    assert cache.read("dino:s").dtype == np.float16
    assert (cache.named["clap"].modality, cache.named["clap"].made["files"]) == ("audio", "a")
    assert read_run(tmp_path / "before").cache.digest == before.digest

    found = inspect(path, verify=True)
    assert found.whole
    assert found.facts["named"]["dino:s"]["shape"] == [12, T, 2, 2, 3]
    assert diff(path, arrays={"f_a": "clap"}).arrays["f_a, clap"].equal == 12
    assert diff(path, arrays={"f_v": "clap"}).incomparable == {"f_v, clap": "(10, 7) and (10, 5)"}
    assert run(cli, ["--quiet", "diff", str(path), "--array", "f_a=clap"]) == DONE

    sweep(path, tmp_path / "joined", {"head": ["tacma", "mlp"]}, audio="clap", visual="f_v+cnn_v", epochs=1)
    (record, _) = read_trials(Run.open(tmp_path / "joined", "heads"))
    assert (record.inputs, record.widths.audio, record.widths.visual) == ("clap,f_v+cnn_v", 5, 14)
    train_head(path, tmp_path / "maps", head="avel", visual="dino:s", epochs=1)
    (record,) = read_trials(Run.open(tmp_path / "maps", "heads"))
    assert (record.inputs, record.widths.cells) == ("cnn_a,dino:s", 4)
    assert evaluate(tmp_path / "maps").groups["avel"].inputs == "cnn_a,dino:s"
    assert look_inside(read_run(tmp_path / "joined"), 0, np.arange(2)).fused.shape[0] == 2

    spoil(audio, "clip3", np.ones((T, 5)))
    with pytest.raises(StoreError, match="holds features named 'clap'"):
        import_features(None, path, audio=GivenFeatures(audio, "clap"))
    import_features(None, path, audio=GivenFeatures(audio, "clap"), overwrite=True)
    assert FeatureCache.open(path).read("clap")[3, 0, 0] == 1
    assert read_run(tmp_path / "before").cache.digest == before.digest
    with pytest.raises(StoreError, match="was trained on"):
        read_run(tmp_path / "joined").cache  # noqa: B018


def test_a_cache_that_is_imported_anew_tells_what_that_drops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, events, audio = tmp_path / "mine.h5", annotations(tmp_path), vectors(tmp_path, "a", (T, 5))
    import_features(None, path, annotations=events, audio=audio, visual=audio)
    import_features(None, path, audio=GivenFeatures(audio, "clap"))
    import_features(None, path, audio=GivenFeatures(audio, "clap"), overwrite=True)
    assert "drops" not in capsys.readouterr().err
    import_features(None, path, annotations=events, audio=audio, visual=audio, overwrite=True)
    assert f"{path} is made again, which drops clap: add them again\n" in capsys.readouterr().err


def test_one_import_at_a_time_writes_a_cache(tmp_path: Path) -> None:
    """Two that read the cache at once would each write it back without the features of the other."""
    path, events, audio = tmp_path / "mine.h5", annotations(tmp_path), vectors(tmp_path, "a", (T, 5))
    given: dict[str, Any] = {"annotations": events, "audio": audio, "visual": audio}
    with lock_cache(path), pytest.raises(BusyError, match="at work on this feature cache"):
        import_features(None, path, **given)
    import_features(None, path, **given)
    with lock_cache(path), pytest.raises(BusyError, match="at work on this feature cache"):
        import_features(None, path, audio=GivenFeatures(audio, "clap"))
    assert not FeatureCache.open(path).named
    assert not parts_folder(path).exists()


def test_options_without_effect_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, events, audio = tmp_path / "mine.h5", annotations(tmp_path), vectors(tmp_path, "a", (T, 5))
    import_features(None, path, annotations=events, audio=audio, visual=audio, segments=T)
    assert "without effect" not in capsys.readouterr().err
    import_features(None, path, annotations=events, audio=GivenFeatures(audio, "clap"), segments=20)
    said = "without effect on features added to a cache: annotations, segments\n"
    assert capsys.readouterr().err.endswith(said)


def test_ids_stand_beside_no_id_where_there_is_no_clip(tmp_path: Path) -> None:
    table = tmp_path / "none.csv"
    table.write_text("video,category,onset,offset\n")
    audio = vectors(tmp_path, "a", (T, 5))
    with pytest.raises(DatasetError, match="12 of 12 ids are of no clip of the dataset") as refused:
        import_features(None, tmp_path / "c.h5", annotations=table, audio=audio, visual=audio)
    assert "is like" not in refused.value.message


def test_what_cannot_stand_beside_is_refused(tmp_path: Path) -> None:
    path, audio = tmp_path / "mine.h5", vectors(tmp_path, "a", (T, 5))
    maps = vectors(tmp_path, "m", (T, 2, 2, 3))
    with pytest.raises(MissingPathError, match="no feature cache to which 'clap' could be added"):
        import_features(None, path, audio=GivenFeatures(audio, "clap"))
    import_features(None, path, annotations=annotations(tmp_path), audio=audio, visual=audio)
    written = path.read_bytes()
    for name, message in (("f_a", "a name of avel's own"), ("a/b", "letters, digits"), ("a+b", "letters")):
        with pytest.raises(ConfigError, match=message):  # before any feature is read, which may take hours
            import_features(None, path, audio=GivenFeatures(tmp_path / "not there", name))
    with pytest.raises(ConfigError, match="visual features without a name"):
        import_features(None, path, audio=GivenFeatures(audio, "clap"), visual=audio)
    with pytest.raises(ConfigError, match="both named 'x'"):
        import_features(None, path, audio=GivenFeatures(audio, "x"), visual=GivenFeatures(audio, "x"))
    spoil(audio, "clip3", None)
    np.save(audio / "stranger.npy", np.zeros((T, 5)))
    for leave_out in (False, True):  # it would not help
        with pytest.raises(DatasetError, match="1 of 12 clips: no features, the first is 'clip3'") as refused:
            import_features(None, path, audio=GivenFeatures(audio, "clap"), leave_out=leave_out)
        assert "1 of 12 ids are of no clip of the cache, the first is 'stranger'" in refused.value.message
        assert refused.value.hint == "give features of every video of the cache"
    assert path.read_bytes() == written

    import_features(None, path, visual=GivenFeatures(maps, "dino"))
    for options, message in (
        ({"visual": "siglip"}, "no visual features named 'siglip'\n.*f_v, cnn_v, dino"),
        ({"audio": "f_v"}, "no audio features named 'f_v'"),
        ({"visual": "dino"}, "head 'mlp' reads no maps as visual features"),
    ):
        with pytest.raises(TrainingError, match=message):
            train_head(path, tmp_path / "run", head="mlp", epochs=1, **options)
    for joined in ("f_v+dino", "f_v+f_v"):
        with pytest.raises(StoreError, match="cannot be joined"):
            train_head(path, tmp_path / "run", head="mlp", epochs=1, visual=joined)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["row", "provenance", "link"])
def test_damage_of_named_features_is_found(what: str, tmp_path: Path) -> None:
    path, audio = tmp_path / "mine.h5", vectors(tmp_path, "a", (T, 5))
    import_features(None, path, annotations=annotations(tmp_path), audio=audio, visual=audio)
    import_features(None, path, audio=GivenFeatures(audio, "clap"))
    with h5py.File(path, "r+") as file:
        if what == "row":
            file["features/clap"][3, 0, 0] += 1
        elif what == "link":
            file.move("features", "elsewhere")
            file["features"] = h5py.SoftLink("/elsewhere")
        else:
            text = file["provenance"].asstr()[()].replace('"files": "a"', '"files": "b"', 3)
            del file["provenance"]
            file["provenance"] = np.array(text.encode(), h5py.string_dtype(length=len(text)))
    if what == "row":
        assert not inspect(path, verify=True).whole
    with pytest.raises(StoreError, match="damaged" if what != "link" else "a link"):
        FeatureCache.open(path).read("clap")


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    audio, events = vectors(tmp_path, "a", (T, 5)), annotations(tmp_path)
    with pytest.raises(ConfigError, match="there are no visual ones"):
        import_features(None, tmp_path / "mine.h5", annotations=events, audio=audio)
    with pytest.raises(ConfigError, match="both AVE files and"):
        import_features(audio, tmp_path / "mine.h5", annotations=events, audio=audio)
    with pytest.raises(ConfigError, match="neither AVE files nor"):
        import_features(None, tmp_path / "mine.h5", annotations=events)
    with pytest.raises(MissingPathError, match="features: no annotations"):
        import_features(None, tmp_path / "mine.h5", audio=audio, visual=audio)
    words = ["--quiet", "import-features", str(tmp_path / "mine.h5"), "--audio", str(audio)]
    assert run(cli, [*words, "--visual-hop", "1"]) == USAGE
    (tmp_path / "mine.h5").touch()
    assert run(cli, [*words, "--visual", str(audio), "--annotations", str(events)]) == ERROR


def test_named_features_are_read_in_another_process_first(tmp_path: Path) -> None:
    path, audio = tmp_path / "mine.h5", vectors(tmp_path, "a", (T, 5))
    import_features(None, path, annotations=annotations(tmp_path), audio=audio, visual=audio)
    import_features(None, path, audio=GivenFeatures(audio, "clap"))
    with h5py.File(path) as file:
        assert {"f_a", "features/clap", "features/clap_crc32c"} <= {*names_in(file)}
