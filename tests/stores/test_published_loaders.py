"""An exported cache in a minimal stand-in for the loader of AVEL's and PSP's published code."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from avel.stores.cached_samples import Missing
from avel.stores.export import export_features
from avel.stores.features import write_features
from tests.samples import cached_samples

ROWS = 34
SPLIT_OF_ROW = ["train"] * 28 + ["val", "test"] * 3
LEFT_OUT = 5


class PublishedLoader:
    """What those loaders do: whole files in memory, arrays of fixed size, one batch after the other."""

    def __init__(self, folder: Path, order: str, batch_size: int) -> None:
        with h5py.File(folder / order, "r") as file:
            self.order = file["order"][:]
        with h5py.File(folder / "audio_feature.h5", "r") as file:
            self.audio = file["avadataset"][:]
        with h5py.File(folder / "labels.h5", "r") as file:
            self.labels = file["avadataset"][:]
        with h5py.File(folder / "visual_feature.h5", "r") as file:
            self.visual = file["avadataset"][:]
        self.batch_size = batch_size
        self.visual_batch = np.float32(np.zeros([batch_size, 10, 7, 7, 512]))
        self.audio_batch = np.float32(np.zeros([batch_size, 10, 128]))
        self.label_batch = np.float32(np.zeros([batch_size, 10, 29]))

    def __len__(self) -> int:
        return len(self.order)

    def get_batch(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        for place in range(self.batch_size):
            row = self.order[index * self.batch_size + place]
            self.visual_batch[place, :, :, :, :] = self.visual[row, :, :, :, :]
            self.audio_batch[place, :, :] = self.audio[row, :, :]
            self.label_batch[place, :, :] = self.labels[row, :, :]
        return self.audio_batch, self.visual_batch, self.label_batch


def write_cache(path: Path, *, audio: int = 128, cells: int = 7) -> dict[str, np.ndarray]:
    """34 samples of 28 classes, one video each; the features of one train sample are missing."""
    random = np.random.default_rng(5)
    kept = np.array([row for row in range(ROWS) if row != LEFT_OUT])
    category = kept % 28
    label = np.where(random.random((len(kept), 10)) < 0.8, category[:, None], 28)
    f_a = random.random((len(kept), 10, audio)).astype(np.float32)
    maps = random.random((len(kept), 10, cells, cells, 512), np.float32).astype(np.float16)
    f_v = maps.astype(np.float32).mean(axis=(2, 3))
    write_features(
        path,
        video_ids=tuple(f"-v{row}" for row in kept),
        categories=tuple(f"event {number}" for number in range(28)),
        samples=cached_samples(label, 28, number=kept, split=np.array(SPLIT_OF_ROW, object)[kept]),
        arrays={"f_a": f_a, "f_v": f_v, "cnn_a": f_a, "cnn_v": f_v, "maps": maps},
        missing=(Missing(LEFT_OUT, f"-v{LEFT_OUT}", "no-video"),),
    )
    return {"audio": f_a, "visual": maps, "label": label, "row": kept}


def test_the_published_loaders_read_what_was_cached(tmp_path: Path) -> None:
    made = write_cache(tmp_path / "c.h5")
    place = {int(row): number for number, row in enumerate(made["row"])}
    findings = export_features(tmp_path / "c.h5", tmp_path / "out").findings
    for split, batch_size in (("train", 9), ("val", 3), ("test", 3)):
        loader = PublishedLoader(tmp_path / "out", f"{split}_order.h5", batch_size)
        wanted = [row for row in range(ROWS) if SPLIT_OF_ROW[row] == split and row != LEFT_OUT]
        assert len(loader) == len(wanted)
        for index in range(len(loader) // batch_size):
            rows = wanted[index * batch_size : (index + 1) * batch_size]
            audio, visual, labels = loader.get_batch(index)
            for number, row in enumerate(rows):
                np.testing.assert_array_equal(audio[number], made["audio"][place[row]])
                np.testing.assert_array_equal(visual[number], made["visual"][place[row]].astype(np.float32))
                assert labels[number].argmax(axis=1).tolist() == made["label"][place[row]].tolist()
                assert (labels[number].sum(axis=1) == 1).all()
    assert [finding for finding in findings if "published" in finding] == [
        f"3 {split} rows: the published code reads 402 as one batch; set its batch_size to this number"
        for split in ("val", "test")
    ]
    with pytest.raises(IndexError):
        PublishedLoader(tmp_path / "out", "val_order.h5", 402).get_batch(0)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"audio": 64}, "audio_feature.h5: rows of (10, 64), the published loaders take (10, 128) only"),
        (
            {"cells": 2},
            "visual_feature.h5: rows of (10, 2, 2, 512), the published loaders take (10, 7, 7, 512) only",
        ),
    ],
)
def test_what_the_published_loaders_cannot_read_is_named(
    tmp_path: Path, changes: dict[str, int], finding: str
) -> None:
    write_cache(tmp_path / "c.h5", **changes)
    assert finding in export_features(tmp_path / "c.h5", tmp_path / "out").findings
    with pytest.raises(ValueError, match="could not broadcast"):
        PublishedLoader(tmp_path / "out", "val_order.h5", 3).get_batch(0)
