"""Clips without events, made into features as those of the cache beside: of a store, of published files."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import DatasetError, MissingPathError, StoreError
from avel.heads.training.records import HeadInputs
from avel.pipeline.caching.cache import cache_features
from avel.recipes.negatives import background_cache
from avel.stores.exchange import import_background
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, encoder_run, write_store
from tests.stores.test_exchange import write_published

OPTIONS: dict[str, Any] = {"keep_maps": True, "frames_per_segment": 2, "device": "cpu"}


@pytest.fixture(scope="module", params=["run", "backbones"])
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of four clips, with maps, by an encoder of a run or by CNNs alone."""
    folder = tmp_path_factory.mktemp("made")
    store = write_store(folder / "s.zarr", NAMES[:4])
    made: dict[str, Any] = RANDOM_TINY | {"crop_size": 28}
    if request.param == "run":
        (folder / "avbt").mkdir()
        made = {"encoder": encoder_run(folder / "avbt")}
    cache_features(store, folder / "main.h5", **OPTIONS, **made)
    return folder / "main.h5"


def test_a_store_is_encoded_as_the_cache_was(cache: Path, tmp_path: Path) -> None:
    silent = write_store(tmp_path / "silent.zarr", ("-quiet", NAMES[0]))
    made = background_cache(silent, cache)
    assert made == cache.with_name("main-silent.h5")
    one, other = FeatureCache.open(cache), FeatureCache.open(made)
    assert other.video_ids == ("-quiet", NAMES[0])
    assert set(other.shapes) == set(one.shapes)
    for name in one.shapes:  # a clip of both stores has the same features in both
        np.testing.assert_allclose(other.read(name)[1], one.read(name)[0], rtol=1e-5, atol=1e-6)
    assert background_cache(made, cache) == made


def test_the_cache_of_the_working_folder_has_its_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_store(tmp_path / "silent.zarr", ("-quiet", NAMES[0])))
    assert background_cache(".", cache) == cache.with_name("main-silent.h5")


def test_what_is_none_of_them_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no folder of videos, clip store or feature cache"):
        background_cache(tmp_path / "nowhere", cache)
    (tmp_path / "note.txt").write_text("none")
    with pytest.raises(StoreError, match=r"note\.txt is a file that is none of avel's"):
        background_cache(tmp_path / "note.txt", cache)


def background_files(folder: Path, data: Path | None = None, count: int = 5) -> dict[str, np.ndarray]:
    """The two published files: the real audio where it is there, maps that are made here."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    if data is None:
        audio = random.random((count, 10, 128))
        with h5py.File(folder / "audio_feature_noisy.h5", "w") as file:
            file["avadataset"] = audio
    else:
        shutil.copy(data / "ave" / "audio_feature_noisy.h5", folder)
        with h5py.File(folder / "audio_feature_noisy.h5") as file:
            audio = file["avadataset"][()]
    maps = random.random((len(audio), 10, 1, 1, 512)) * np.ones((7, 7, 1))
    with h5py.File(folder / "visual_feature_noisy.h5", "w") as file:
        file["avadataset"] = maps.astype(np.float16)
    return {"audio": audio, "maps": maps}


def test_the_published_background_clips_join_the_imported_cache(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AVE's own 178, from the command line; they name no video and have no annotation."""
    write_published(tmp_path / "ave")
    given = background_files(tmp_path / "ave", data)
    main, runs = str(tmp_path / "main.h5"), str(tmp_path / "run")
    assert run(cli, ["import-features", str(tmp_path / "ave"), main]) == DONE
    words = ["--head", "bilstm", "--supervision", "weak", "--epochs", "1", "--device", "cpu"]
    assert run(cli, ["train-head", main, runs, "--negatives", str(tmp_path / "ave"), *words]) == DONE
    capsys.readouterr()
    (path,) = Run.open(runs).read_inputs(HeadInputs).negatives
    cache = FeatureCache.open(path)
    assert len(cache.video_ids) == 178
    assert cache.video_ids[:2] == ("background-0", "background-1")
    assert not len(cache.samples)
    np.testing.assert_allclose(cache.read("cnn_a"), given["audio"], rtol=1e-6)
    np.testing.assert_allclose(cache.read("maps")[3], given["maps"][3], rtol=1e-3, atol=1e-3)


def test_rows_without_numbers_are_missing(tmp_path: Path) -> None:
    background_files(tmp_path)
    with h5py.File(tmp_path / "audio_feature_noisy.h5", "r+") as file:
        file["avadataset"][2, 3] = np.nan
    found = import_background(tmp_path, tmp_path / "c.h5")
    assert (found.videos, found.missing) == (4, 1)
    cache = FeatureCache.open(tmp_path / "c.h5")
    assert cache.video_ids == ("background-0", "background-1", "background-3", "background-4")
    assert cache.missing[0].video_id == "background-2"


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    background_files(tmp_path)
    with h5py.File(tmp_path / "audio_feature_noisy.h5", "w") as file:
        file["avadataset"] = np.zeros((4, 10, 128))
    with pytest.raises(DatasetError, match="5 rows, the annotations have 4"):
        import_background(tmp_path, tmp_path / "d.h5")
    (tmp_path / "audio_feature_noisy.h5").unlink()
    with pytest.raises(MissingPathError, match="audio_feature_noisy"):
        import_background(tmp_path, tmp_path / "d.h5")
