"""What a store names is shown only where it lies in its dataset, and copied only if it was staged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from avel.errors import StaleError
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache, write_features
from avel.stores.manifest import ManifestWriter
from avel.views import footage
from avel.views.footage import Footage, open_footage
from tests.pipeline.caching.small_stores import write_store
from tests.samples import cached_samples
from tests.stores.forging import forge_table


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """A store that names a staged file, a changed one, one outside of the dataset, and a link to that."""
    folder = tmp_path / "videos"
    folder.mkdir()
    names = ("a", "b", "c", "d")
    write_store(tmp_path / "s.zarr", names)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("a", "b"):
        (folder / f"{name}.mp4").write_text(name)
    (folder / "d.mp4").symlink_to(tmp_path / "secret.txt")
    paths = [str(folder / f"{name}.mp4") for name in names]
    paths[2] = str(folder / ".." / "secret.txt")
    tables = tmp_path / "s.zarr" / "dataset"
    forge_table(
        tables / "videos.parquet", lambda table: pa.table({"video_id": names, "path": paths}, table.schema)
    )
    forge_table(
        tables / "samples.parquet",
        lambda table: table.replace_schema_metadata(table.schema.metadata | {b"root": str(folder).encode()}),
    )
    opened = ClipStore.open(tmp_path / "s.zarr")
    writer = ManifestWriter(opened.location)
    writer.append(
        [
            replace(entry, source_sha256=footage.sha256_file(folder / "a.mp4"))
            for entry in writer.entries.values()
        ]
    )
    return ClipStore.open(tmp_path / "s.zarr")


def test_only_files_of_the_dataset_are_shown_and_only_staged_ones_copied(store: ClipStore) -> None:
    shown = Footage(store, 3)
    assert set(shown.videos) == {"a", "b", "d"}
    assert [name for name in shown.videos if shown.is_original(name)] == ["a"]


@pytest.mark.parametrize(("segments", "seconds"), [(4, 1.0), (3, 0.5), (2, 2.0)])
def test_a_store_of_other_segments_than_the_cache_is_not_shown(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], segments: int, seconds: float
) -> None:
    place = str(store.location.url)
    write_features(
        tmp_path / "c.h5",
        video_ids=("a",),
        categories=("bark", "bell"),
        samples=cached_samples([[0] * segments], 2),
        arrays={name: np.ones((1, segments, 2)) for name in ("f_a", "f_v")},
        segment_seconds=seconds,
        provenance={"store": place},
    )
    cache = FeatureCache.open(tmp_path / "c.h5")
    assert open_footage(cache).store is None
    assert f"left out: {place}: has 3 segments of 1 s" in capsys.readouterr().err
    with pytest.raises(StaleError, match="3 segments of 1 s"):
        open_footage(cache, place)


def test_a_cache_that_names_a_url_connects_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("connected")

    write_features(
        tmp_path / "c.h5",
        video_ids=("a",),
        categories=("bark", "bell"),
        samples=cached_samples([[0, 1, 2]], 2),
        arrays={"f_a": np.ones((1, 3, 2)), "f_v": np.ones((1, 3, 2))},
        provenance={"store": "s3://somebody/a store"},
    )
    monkeypatch.setattr(footage.ClipStore, "open", connect)
    assert open_footage(FeatureCache.open(tmp_path / "c.h5")).store is None
    assert "--store 's3://somebody/a store' reads them from there" in capsys.readouterr().err
