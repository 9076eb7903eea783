"""One small file of every format that avel reads but media, each with what reads it whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from avel.config import resolve
from avel.errors import StoreError
from avel.grid import Grid
from avel.heads.config import TrainConfig
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.evaluation import Evaluation
from avel.heads.evaluation.predictions import read_predictions
from avel.heads.evaluation.submissions import read_submission
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.train import train_head
from avel.heads.training.records import load_model, read_trials
from avel.pipeline.caching.key import encoder_file_digest
from avel.pipeline.encoders.saved import load_encoder
from avel.pipeline.encoders.weights import read_state
from avel.stores.clip_check import verify_clips
from avel.stores.clips import ClipStore
from avel.stores.datasets.formats import read_dataset
from avel.stores.exchange import import_features
from avel.stores.feature_files import open_features
from avel.stores.features import FeatureCache
from avel.stores.inspection import inspect
from avel.stores.runs import Run
from tests.heads.synthetic import train_config, write_cache
from tests.pipeline.caching.small_stores import CONFIG, encoder_run, write_store
from tests.stores.datasets import test_activitynet as activitynet
from tests.stores.datasets import test_ave_pm as ave_pm
from tests.stores.datasets import test_desed as desed
from tests.stores.datasets import test_llp as llp
from tests.stores.datasets import test_ov_avebench as ov_avebench
from tests.stores.datasets import test_vggsound_avel as vggsound_avel

AVE = "Bark&-a&good&0&10\nBell&b&good&2.5&5\nBell&-a&good&0&10\n"


@dataclass(frozen=True)
class Reader:
    """A file below the folder of all, and what reads it."""

    file: str
    read: Callable[[Path], object]


def _store(folder: Path) -> object:
    store = ClipStore.open(folder / "s.zarr")
    for what in verify_clips(store):
        raise StoreError(f"{store.location.url}: {what}")
    audio = [(store.log_mel(name), store.waveform(name)) for name in store.staged]
    return store.dataset, audio


def _frames(folder: Path) -> object:
    store = ClipStore.open(folder / "s.zarr")
    return store.frames("a", range(store.grid.frames)), store.waveform("a")


def _cache(folder: Path) -> object:
    cache = FeatureCache.open(folder / "c.h5")
    return cache.faults(), cache.labels(), cache.command()


def _run(folder: Path) -> object:
    run = Run.open(folder / "run", "heads")
    models = [load_model(run, trial) for trial in read_trials(run)]
    found = inspect(run.path, verify=True)
    return models, run.config(TrainConfig), read_predictions(run), run.read_results(Evaluation), found


def _evaluated(folder: Path) -> object:
    return evaluate(folder / "run")


def _imported(folder: Path) -> object:
    return import_features(folder / "ave", folder / "i.h5", any_size=True, overwrite=True)


def _encoder(folder: Path) -> object:
    return encoder_file_digest(folder / "encoder"), load_encoder(folder / "encoder")


def _features(name: str) -> Reader:
    def read(folder: Path) -> object:
        with open_features(folder / name) as files:
            return [files.read(place) for place in range(files.count)]

    return Reader(name, read)


def _submitted(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        dataset = read_dataset(folder / "v", folder / "events.csv")
        task = SingleLabel(dataset.categories)
        return read_submission(folder / name, dataset, dataset.samples, task, Grid(segments=2))

    return read


READERS = [
    Reader("events.csv", lambda folder: read_dataset(folder / "v", folder / "events.csv")),
    Reader("events.parquet", lambda folder: read_dataset(folder / "v", folder / "events.parquet")),
    Reader("ave/Annotations.txt", lambda folder: read_dataset(folder / "ave")),
    Reader("ave/testSet.txt", lambda folder: read_dataset(folder / "ave")),
    Reader("config.toml", lambda folder: resolve(TrainConfig, "train-head", file=folder / "config.toml")),
    Reader("unav/annotations/unav100_annotations.json", lambda folder: read_dataset(folder / "unav")),
    Reader("desed/metadata/train/synthetic.tsv", lambda folder: read_dataset(folder / "desed")),
    Reader("avel/vggsound-avel100k.csv", lambda folder: read_dataset(folder / "avel")),
    Reader("avel/vggsound-avel100k_annos.json", lambda folder: read_dataset(folder / "avel")),
    Reader("ave-pm/train.csv", lambda folder: read_dataset(folder / "ave-pm")),
    Reader("ave-pm/class_name_mapping.csv", lambda folder: read_dataset(folder / "ave-pm")),
    Reader("llp/data/AVVP_train.csv", lambda folder: read_dataset(folder / "llp")),
    Reader("llp/data/AVVP_eval_audio.csv", lambda folder: read_dataset(folder / "llp")),
    Reader("ov/ovave_dataset_meta.csv", lambda folder: read_dataset(folder / "ov")),
    Reader("ov/released_ovavel_dataset_anno.json", lambda folder: read_dataset(folder / "ov")),
    Reader("segments.csv", _submitted("segments.csv")),
    Reader("segments.parquet", _submitted("segments.parquet")),
    Reader("segments.npy", _submitted("segments.npy")),
    *map(_features, ("features.npy", "features.npz", "features.pt", "features.h5", "features.parquet")),
    Reader("s.zarr/zarr.json", _store),
    Reader("s.zarr/rows.parquet", _store),
    Reader("s.zarr/frames/zarr.json", _store),
    Reader("s.zarr/log_mel/zarr.json", _store),
    Reader("s.zarr/log_mel/c/0/0/0/0", _store),
    Reader("s.zarr/waveform/zarr.json", _store),
    Reader("s.zarr/waveform/c/0/0", _store),
    Reader("s.zarr/frames/c/0/0", _frames),
    Reader("s.zarr/waveform/c/0/0", _frames),
    Reader("s.zarr/manifest/part-00000003.parquet", _store),
    Reader("s.zarr/dataset/samples.parquet", _store),
    Reader("s.zarr/dataset/events.parquet", _store),
    Reader("s.zarr/dataset/videos.parquet", _store),
    Reader("c.h5", _cache),
    Reader("ave/audio_feature.h5", _imported),
    Reader("ave/labels.h5", _imported),
    Reader("ave/train_order.h5", _imported),
    Reader("run/run.json", _run),
    Reader("run/results.json", _run),
    Reader("run/files.json", _run),
    Reader("run/metrics.jsonl", lambda folder: (Run.open(folder / "run").metrics(), _run(folder))),
    Reader("run/trials/seed=0.json", _evaluated),
    Reader("run/trials/seed=0.safetensors", _run),
    Reader("run/predictions.parquet", _evaluated),
    Reader("encoder/encoder.safetensors", _encoder),
    Reader("weights.safetensors", lambda folder: read_state(folder / "weights.safetensors")),
    Reader("weights.pth", lambda folder: read_state(folder / "weights.pth")),
]


def make_files(folder: Path) -> None:
    """Writes all of them below `folder`."""
    (folder / "v").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / "v" / name).write_bytes(b"")
    (folder / "events.csv").write_text("video,category,start,end\na,bark,0,1\nb.mp4,bell,0.5,2\n")
    table = pa.table({"video": ["a", "b"], "category": ["bark", "bell"], "onset": [0.0, 1], "end": [1.0, 2]})
    pq.write_table(table, folder / "events.parquet")
    activitynet.layout(folder / "unav")
    desed.layout(folder / "desed")
    vggsound_avel.layout(folder / "avel")
    ave_pm.layout(folder / "ave-pm")
    llp.llp_folder(folder / "llp")
    ov_avebench.layout(folder / "ov")
    said = {
        "sample": [0, 0, 1, 1],
        "segment": [0, 1, 0, 1],
        "prediction": ["bark", "background", "bell", "bell"],
    }
    pyarrow.csv.write_csv(pa.table(said), folder / "segments.csv")
    pq.write_table(pa.table(said), folder / "segments.parquet")
    np.save(folder / "segments.npy", np.array([[0, 2], [1, 1]]))
    _write_features(folder)
    (folder / "config.toml").write_text('[train-head]\nhead = "tacma"\nepochs = 3\nlr = 0.01\n')
    write_store(folder / "s.zarr", ("a", "b", "d"), config=replace(CONFIG, waveform=True), failed=("d",))
    write_cache(folder / "c.h5", samples=12, segments=3)
    train_head(folder / "c.h5", folder / "run", train_config(head="mlp", epochs=1, device="cpu"))
    encoder_run(folder / "encoder")
    state = {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.zeros(3)}
    save_file(state, folder / "weights.safetensors")
    torch.save(state, folder / "weights.pth")
    _write_ave(folder / "ave")


def _write_features(folder: Path) -> None:
    """Writes features of others, the same in every form."""
    rows, ids = np.arange(24, dtype=np.float32).reshape(2, 4, 3), ["a", "b"]
    np.save(folder / "features.npy", rows)
    np.savez_compressed(folder / "features.npz", x=rows, ids=np.array(ids))
    torch.save({"x": torch.from_numpy(rows), "ids": ids}, folder / "features.pt")
    with h5py.File(folder / "features.h5", "w") as file:
        file["x"], file["ids"] = rows, np.array(ids, "S")
    pq.write_table(pa.table({"id": ids, "x": rows.tolist()}), folder / "features.parquet")


def _write_ave(folder: Path) -> None:
    folder.mkdir()
    (folder / "Annotations.txt").write_text(AVE)
    for split, line in (("train", 0), ("test", 1)):
        (folder / f"{split}Set.txt").write_text(AVE.splitlines(keepends=True)[line])
    random = np.random.default_rng(0)
    arrays = {"audio_feature": (10, 8), "visual_feature_vec": (10, 8)}
    for name, shape in arrays.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["avadataset"] = random.random((2, *shape))[[0, 1, 0]]
    labels = np.full((3, 10), 2)
    labels[0], labels[2], labels[1, 2:5] = 0, 1, 1
    with h5py.File(folder / "labels.h5", "w") as file:
        file["avadataset"] = np.eye(3)[labels]
    with h5py.File(folder / "train_order.h5", "w") as file:
        file["order"] = np.array([0])
