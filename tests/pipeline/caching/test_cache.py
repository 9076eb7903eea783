"""The feature cache: right numbers, nothing twice, nothing stale, nothing anonymous."""

import dataclasses
import hashlib
import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from avel.cli import cli
from avel.console import DONE, ERROR
from avel.console import run as run_command
from avel.errors import BusyError, ConfigError, MissingPathError, StaleError, StoreError
from avel.pipeline.caching import workers
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.key import encoder_file_digest
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, CacheConfig
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.encoders.saved import encoder_digest, load_encoder, save_encoder
from avel.pipeline.encoders.tiny import TinyAudio, TinyConfig, TinyVisual
from avel.stores.clip_writer import write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.sample import Event, Samples
from avel.stores.features import FeatureCache
from avel.stores.files import only_one
from avel.stores.location import locate
from avel.temporal import Temporal, TemporalSizes
from tests.pipeline.caching.killed_cache import make_cache, stop_in_merge
from tests.pipeline.caching.small_stores import (
    NAMES,
    RANDOM_TINY,
    dataset_of,
    encoder_run,
    other_settings,
    write_store,
)

TINY = {**RANDOM_TINY, "crop_size": 28}


def by_hand(store: Path, encoder: Encoder, video_id: str, frames: list[int]) -> dict[str, np.ndarray]:
    """One clip through the encoder on its own, one frame of each segment after the other."""
    clips = ClipStore.open(store)
    vectors = []
    log_mel = torch.from_numpy(clips.log_mel(video_id))[None]
    for frame in frames:
        wanted = [segment * clips.grid.frames_per_segment + frame for segment in range(clips.grid.segments)]
        images = torch.from_numpy(clips.frames(video_id, wanted)).permute(0, 3, 1, 2)[None]
        audio, visual = encoder.cnn(images[..., 2:30, 2:30], log_mel)
        vectors.append(visual)
    f_a, f_v = encoder.temporal(audio, torch.stack(vectors).mean(0))
    named = {"f_a": f_a, "f_v": f_v, "cnn_a": audio, "cnn_v": torch.stack(vectors).mean(0)}
    return {name: value[0].detach().numpy() for name, value in named.items()}


@pytest.mark.parametrize("frames_per_segment", [1, 3])
def test_features_are_those_of_each_clip_on_its_own(
    store: Path, run: Path, tmp_path: Path, frames_per_segment: int
) -> None:
    summary = cache_features(
        store,
        tmp_path / "c.h5",
        encoder=run,
        keep_cnn=True,
        frames_per_segment=frames_per_segment,
        batch_size=3,
    )
    cache = FeatureCache.open(tmp_path / "c.h5")
    assert (summary.videos, summary.encoded, summary.samples, summary.missing) == (10, 10, 11, 1)
    assert cache.video_ids == NAMES[:4] + NAMES[5:]
    assert cache.shapes["f_a"] == (10, 3, 16)
    encoder = load_encoder(run)
    for index in (0, 7):
        frames = {1: [2], 3: [0, 2, 3]}[frames_per_segment]
        for name, values in by_hand(store, encoder, cache.video_ids[index], frames).items():
            np.testing.assert_allclose(cache.read(name)[index], values, atol=1e-5, err_msg=name)
    state = {name: torch.from_numpy(values) for name, values in cache.read_temporal().items()}
    temporal = Temporal(TemporalSizes.of(state))
    temporal.load_state_dict(state)
    f_a, f_v = temporal(*(torch.from_numpy(cache.read(name)) for name in ("cnn_a", "cnn_v")))
    np.testing.assert_allclose(cache.f_a, f_a.detach(), atol=1e-6)
    np.testing.assert_allclose(cache.f_v, f_v.detach(), atol=1e-6)


def test_bi_lstms_are_those_of_the_features_though_the_encoder_is_replaced_meanwhile(
    store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(run, mine)
    before = load_encoder(mine).temporal.state_dict()
    original = workers.encode_all

    def encode_all(*arguments: Any) -> Any:
        yield from original(*arguments)
        (other := load_encoder(mine)).temporal.audio_lstm.weight_ih_l0.data.add_(1)
        save_encoder(other, mine / "encoder.safetensors")

    monkeypatch.setattr(workers, "encode_all", encode_all)
    cache_features(store, tmp_path / "c.h5", encoder=mine, keep_cnn=True)
    kept = FeatureCache.open(tmp_path / "c.h5").read_temporal()["audio_lstm.weight_ih_l0"]
    np.testing.assert_array_equal(kept, before["audio_lstm.weight_ih_l0"])


def test_samples_that_could_not_be_staged_are_absent_by_name(store: Path, run: Path, tmp_path: Path) -> None:
    cache_features(store, tmp_path / "c.h5", encoder=run)
    cache = FeatureCache.open(tmp_path / "c.h5")
    assert [(item.sample, item.video_id, item.reason) for item in cache.missing] == [
        (4, "-v4", "no-video: no stream")
    ]
    assert cache.samples.number.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert cache.samples.video.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert cache.samples.leaked.tolist() == [False] * 10 + [True]


def test_settings_of_cnns_are_not_told_beside_an_encoder(
    store: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cache-features", str(store), str(tmp_path / "f.h5"), "--encoder", str(run)]
    assert run_command(cli, words) == DONE
    told = capsys.readouterr().err
    assert "batch_size = 8" in told
    assert "weights" not in told


def test_a_second_call_does_nothing_and_needs_no_torch(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, encoder=run)
    before = path.stat()
    code = """
import sys, time
from avel.pipeline.caching.cache import cache_features
summary = cache_features(sys.argv[1], sys.argv[2], encoder=sys.argv[3])
print(summary.encoded, summary.kept, "torch" in sys.modules, "zarr" in sys.modules, time.process_time())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(store), str(path), str(run)],
        capture_output=True,
        text=True,
        check=True,
    )
    encoded, kept, torch_imported, zarr_imported, seconds = done.stdout.split()
    assert (encoded, kept, torch_imported, zarr_imported) == ("0", "10", "False", "False")
    assert float(seconds) < 1  # of the processor's time: what the clock says depends on who else is at work
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_new_and_changed_clips_are_encoded_alone(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, encoder=run)
    before = dict(zip(FeatureCache.open(path).video_ids, FeatureCache.open(path).f_v, strict=True))
    write_store(store, ("-v4", "new"))
    write_store(store, ("-v7",), version="2")
    summary = cache_features(store, path, encoder=run)
    assert (summary.encoded, summary.kept, summary.videos, summary.missing) == (3, 9, 12, 0)
    after = dict(zip(FeatureCache.open(path).video_ids, FeatureCache.open(path).f_v, strict=True))
    assert list(after) == [*NAMES, "new"]
    for name, values in before.items():
        assert np.array_equal(values, after[name]) == (name != "-v7")
    fresh = cache_features(store, tmp_path / "fresh.h5", encoder=run, batch_size=1)
    assert fresh.encoded == 12
    np.testing.assert_allclose(
        FeatureCache.open(tmp_path / "fresh.h5").f_v, FeatureCache.open(path).f_v, atol=1e-5
    )


def test_clips_whose_videos_left_the_dataset_leave_the_cache(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, encoder=run)
    write_dataset(locate(store), dataset_of(NAMES[:4]))
    summary = cache_features(store, path, encoder=run)
    assert (summary.encoded, summary.kept, summary.videos, summary.missing) == (0, 4, 4, 0)
    assert FeatureCache.open(path).video_ids == NAMES[:4]
    assert cache_features(store, tmp_path / "fresh.h5", encoder=run).encoded == 4
    write_dataset(locate(store), dataset_of(["elsewhere"]))
    with pytest.raises(StoreError, match="no staged clip of its dataset"):
        cache_features(store, path, encoder=run)


def test_other_annotations_change_the_samples_but_no_feature(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, encoder=run)
    data = ClipStore.open(store).dataset
    first = dataclasses.replace(data.samples[0], events=(Event("bark", 0, 3),))
    write_dataset(locate(store), dataclasses.replace(data, samples=Samples.of((first, *data.samples[1:]))))
    assert FeatureCache.open(path).labels()[0].tolist() == [0, 3, 3]
    summary = cache_features(store, path, encoder=run)
    assert (summary.encoded, summary.kept) == (0, 10)
    assert FeatureCache.open(path).labels()[0].tolist() == [0, 0, 0]


def test_a_cache_made_otherwise_is_refused_with_what_differs(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, encoder=run)
    first = FeatureCache.open(path).digest
    other = encoder_run(tmp_path / "other", seed=1)
    with pytest.raises(StaleError, match=r"encoder.digest was [\s\S]*--encoder .*other --overwrite"):
        cache_features(store, path, encoder=other)
    with pytest.raises(StaleError, match=r"preprocessing.frames was \[2\], is now \[1, 3\]"):
        cache_features(store, path, encoder=run, frames_per_segment=2)
    with pytest.raises(StaleError, match=r"preprocessing.dtype was .float32., is now .bfloat16."):
        cache_features(store, path, encoder=run, dtype="bfloat16")
    with pytest.raises(StaleError, match="arrays was"):
        cache_features(store, path, encoder=run, keep_maps=True)
    with pytest.raises(StaleError, match=r"encoder.kind was .run., is now .backbones."):
        cache_features(store, path, **TINY)
    staged = write_store(tmp_path / "other.zarr", NAMES, config=other_settings())
    with pytest.raises(StaleError, match=r"staging.settings.jpeg_quality was 96, is now 90"):
        cache_features(staged, path, encoder=run)
    assert FeatureCache.open(path).digest == first
    assert cache_features(store, path, encoder=other, overwrite=True).encoded == 10
    assert FeatureCache.open(path).digest != first


def test_batch_size_and_place_are_no_part_of_the_key(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, encoder=run, batch_size=2)
    moved = run.rename(tmp_path / "moved")
    assert cache_features(store, path, encoder=moved, batch_size=5, device="cpu").kept == 10


def test_the_file_says_what_it_was_made_from(store: Path, run: Path, tmp_path: Path) -> None:
    cache_features(store, tmp_path / "c.h5", encoder=run)
    cache = FeatureCache.open(tmp_path / "c.h5")
    told = cache.provenance
    assert told["encoder"]["digest"] == encoder_digest(load_encoder(run))
    assert told["encoder"]["visual"]["backbone"] == "tiny"
    assert told["staging"]["digest"] == ClipStore.open(store).digest
    assert told["preprocessing"] == {
        "frames": [2],
        "crop": "centre, 7/8 of each side",
        "crop_size": 28,
        "dtype": "float32",
        "own_lengths": False,
    }
    assert cache.sources["-v0"] == "-v0-1"
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert json.loads(json.dumps(told)) == told


def test_without_an_encoder_the_backbones_vectors_are_kept(store: Path, tmp_path: Path) -> None:
    cache_features(store, tmp_path / "c.h5", keep_maps=True, **TINY)
    cache = FeatureCache.open(tmp_path / "c.h5")
    assert cache.shapes["f_a"] == cache.shapes["f_v"] == (10, 3, 128)
    np.testing.assert_array_equal(cache.f_a, cache.read("cnn_a"))
    assert cache.provenance["encoder"]["kind"] == "backbones"
    assert cache.shapes["maps"] == (10, 3, 2, 2, 128)
    np.testing.assert_allclose(cache.read("maps").astype(np.float32).mean(axis=(2, 3)), cache.f_v, atol=2e-3)


@VISUAL_BACKBONES.register("pooling")
class Pooling(TinyVisual):
    """Pools otherwise than by the mean, and would be far off if it ran twice on a batch."""

    @dataclass(frozen=True)
    class Config(TinyVisual.Config):
        """The same settings."""

    def forward(self, frames: Tensor) -> Tensor:
        assert len(frames) == 1, "a second pass"  # one image is measured beforehand
        return self.vectors_and_maps(frames)[0]

    def vectors_and_maps(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(frames)
        return maps.amax((2, 3)), maps


def test_maps_and_vectors_that_are_not_their_mean_come_of_one_pass(store: Path, tmp_path: Path) -> None:
    cache_features(store, tmp_path / "c.h5", keep_maps=True, **TINY | {"visual_backbone": "pooling"})
    cache = FeatureCache.open(tmp_path / "c.h5")
    np.testing.assert_allclose(cache.read("maps").astype(np.float32).max(axis=(2, 3)), cache.f_v, atol=2e-3)


def test_an_untrained_encoder_follows_from_its_seed(store: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        cache_features(store, tmp_path / f"{name}.h5", untrained=True, seed=seed, **TINY)
    a, b, c = (FeatureCache.open(tmp_path / f"{name}.h5") for name in "abc")
    assert a.shapes["f_a"] == (10, 3, 256)
    assert a.digest == b.digest
    assert not np.allclose(a.f_a, c.f_a)
    assert (a.provenance["encoder"]["kind"], a.provenance["encoder"]["seed"]) == ("untrained", 0)


def test_random_backbones_follow_from_the_seed_and_it_is_part_of_the_key(store: Path, tmp_path: Path) -> None:
    cache_features(store, tmp_path / "c.h5", **TINY)
    with pytest.raises(StaleError, match=r"encoder.seed was 0, is now 1"):
        cache_features(store, tmp_path / "c.h5", seed=1, **TINY)


def test_what_is_random_is_recorded_so_and_a_file_by_its_hash(store: Path, tmp_path: Path) -> None:
    save_file(TinyAudio(TinyAudio.Config()).state_dict(), tmp_path / "audio.safetensors")
    cache_features(
        store, tmp_path / "c.h5", **(TINY | {"audio_weights": str(tmp_path / "audio.safetensors")})
    )
    told = FeatureCache.open(tmp_path / "c.h5").provenance["encoder"]
    digest = hashlib.sha256((tmp_path / "audio.safetensors").read_bytes()).hexdigest()
    assert (told["visual"]["weights"], told["audio"]["weights"], told["seed"]) == ("random", digest, 0)


@VISUAL_BACKBONES.register("outside")
class OutsideVisual(TinyVisual):
    """As a package beside avel registers it, without published weights."""

    @dataclasses.dataclass(frozen=True)
    class Config(TinyConfig):
        """The settings of a tiny one."""


@AUDIO_BACKBONES.register("outside")
class OutsideAudio(TinyAudio):
    """As a package beside avel registers it, without published weights."""

    @dataclasses.dataclass(frozen=True)
    class Config(TinyConfig):
        """The settings of a tiny one."""


@pytest.mark.parametrize("untrained", [False, True])
@pytest.mark.parametrize("kind", ["visual", "audio"])
@pytest.mark.parametrize("name", ["tiny", "outside"])
def test_features_of_random_cnns_are_refused_unless_asked_for(
    name: str, kind: str, untrained: bool, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.h5"
    options = [f"--{one}-backbone={name if one == kind else 'tiny'}" for one in ("visual", "audio")]
    other = "audio" if kind == "visual" else "visual"
    options += [f"--{other}-weights=random", "--crop-size=28", *(["--untrained"] if untrained else [])]
    assert run_command(cli, ["cache-features", str(store), str(path), *options]) == ERROR
    said = capsys.readouterr().err
    assert f"--{kind}-weights is published" in said
    assert f"--{kind}-weights random" in said
    assert not path.exists()
    asked = [*options, f"--{kind}-weights=random"]
    assert run_command(cli, ["cache-features", str(store), str(path), *asked]) == 0
    told = FeatureCache.open(path).provenance["encoder"]
    assert (told["visual"]["weights"], told["audio"]["weights"]) == ("random", "random")


def test_audio_guided_attention_sees_the_cells(store: Path, tmp_path: Path) -> None:
    run = encoder_run(tmp_path / "run", agva=True)
    cache_features(store, tmp_path / "c.h5", encoder=run, keep_cnn=True)
    cache, encoder, clips = FeatureCache.open(tmp_path / "c.h5"), load_encoder(run), ClipStore.open(store)
    images = torch.from_numpy(clips.frames("-v0", [2, 6, 10])).permute(0, 3, 1, 2)[None, ..., 2:30, 2:30]
    f_a, f_v = encoder(images, torch.from_numpy(clips.log_mel("-v0"))[None])
    np.testing.assert_allclose(cache.f_v[0], f_v[0], atol=1e-5)
    np.testing.assert_allclose(cache.f_a[0], f_a[0], atol=1e-5)
    assert cache.shapes["cnn_v"] == (10, 3, 128)
    with pytest.raises(ConfigError, match=r"crop_size=16: .* cells of 28 pixels"):
        cache_features(store, tmp_path / "d.h5", encoder=run, crop_size=16)


def test_bfloat16_is_close_to_float32(store: Path, run: Path, tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        cache_features(store, tmp_path / f"{name}.h5", encoder=run, dtype=name)
    full, half = (FeatureCache.open(tmp_path / f"{name}.h5").f_v for name in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() < 0.05


def test_a_clip_the_store_cannot_read_is_missing_by_name(store: Path, run: Path, tmp_path: Path) -> None:
    (chunk,) = (store / "log_mel").glob("c/2/0/0/0")
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    summary = cache_features(store, tmp_path / "c.h5", encoder=run)
    assert (summary.videos, list(summary.failed)) == (9, ["-v2"])
    cache = FeatureCache.open(tmp_path / "c.h5")
    assert [item.video_id for item in cache.missing] == ["-v2", "-v4"]
    assert cache.missing[0].reason.startswith("damaged in the store")
    write_store(store, ("-v2",))
    assert cache_features(store, tmp_path / "c.h5", encoder=run).encoded == 1


@pytest.mark.slow
def test_killed_at_random_the_file_is_the_same_and_no_part_is_computed_twice(
    run: Path, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(120)])
    cache, log = tmp_path / "killed.h5", tmp_path / "read.log"
    chance, kills = random.Random(0), 0
    while kills < 20:
        finished = videos_in_parts(tmp_path)
        log.write_text("")
        process = started(make_cache, store, cache, run, log, 0.05)
        parts = part_files(tmp_path)
        while process.is_alive() and part_files(tmp_path) == parts:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.join()
        assert not cache.exists()
        kills += 1
        assert not finished & set(log.read_text().split())
    finished = videos_in_parts(tmp_path)
    assert 40 <= len(finished) < 120
    log.write_text("")
    make_cache(store, cache, run, log)
    assert set(log.read_text().split()) == {f"v{number}" for number in range(120)} - finished
    make_cache(store, tmp_path / "whole.h5", run, log)
    assert cache.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.slow
def test_killed_in_the_merge_nothing_is_computed_again(run: Path, tmp_path: Path) -> None:
    """Blocks 1 and 2 are those of f_a and f_v that are written into the file."""
    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)])
    cache, log, reached = tmp_path / "killed.h5", tmp_path / "read.log", tmp_path / "reached"
    make_cache(store, tmp_path / "whole.h5", run, log)
    for block in (1, 2):
        log.write_text("")
        reached.unlink(missing_ok=True)
        process = started(stop_in_merge, store, cache, run, log, reached, block)
        while not reached.exists():
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
        assert not cache.exists()
        assert len(set(log.read_text().split())) == (10 if block == 1 else 0)
        assert len(videos_in_parts(tmp_path)) == 10
    assert len(list(tmp_path.glob(".killed.h5.*.partial"))) == 1
    log.write_text("")
    make_cache(store, cache, run, log)
    assert log.read_text() == ""
    assert cache.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list(tmp_path.glob(".killed.*"))


def started(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that runs it; all are forked from one that has imported what they need."""
    server = multiprocessing.get_context("forkserver")
    killed = "tests.pipeline.caching.killed_cache"
    server.set_forkserver_preload([killed, "avel.pipeline.caching.workers", "zarr", "pyarrow.parquet"])
    process = server.Process(target=target, args=arguments)
    process.start()
    return process


def part_files(folder: Path) -> set[Path]:
    """Finished parts; a name with a dot before it is a part in the making."""
    return set(folder.glob(".killed.h5.parts/*/[!.]*.h5"))


def videos_in_parts(folder: Path) -> set[str]:
    """Videos whose features lie in finished parts."""
    names: set[str] = set()
    for path in part_files(folder):
        with h5py.File(path, "r") as file:
            names |= set(file["video_ids"].asstr()[()])
    return names


def test_a_torchless_digest_is_that_of_the_loaded_encoder(run: Path, tmp_path: Path) -> None:
    spec, digest = encoder_file_digest(run)
    assert digest == encoder_digest(load_encoder(run))
    assert spec["encoder"]["hidden"] == 8
    save_encoder(load_encoder(run), tmp_path / "again.safetensors", other="words in the header")
    assert encoder_file_digest(tmp_path / "again.safetensors")[1] == digest


def test_an_encoder_file_that_was_cut_short_has_no_digest(run: Path, tmp_path: Path) -> None:
    whole = (run / "encoder.safetensors").read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(StoreError, match="not a whole safetensors file"):
            encoder_file_digest(tmp_path / "cut.safetensors")


def test_errors_name_the_way_out(store: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    with pytest.raises(MissingPathError, match="no clip store"):
        cache_features(tmp_path / "none", path)
    with pytest.raises(MissingPathError, match="avel pretrain"):
        cache_features(store, path, encoder=tmp_path / "none")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(StoreError, match="no encoder of format 4"):
        cache_features(store, path, encoder=tmp_path / "x.safetensors")
    for option in ({"untrained": True}, {"visual_backbone": "tiny"}, {"audio_weights": "random"}):
        with pytest.raises(ConfigError, match=f"{next(iter(option))}=.* beside an encoder"):
            cache_features(store, path, encoder=run, **option)
    with pytest.raises(ConfigError, match="frames_per_segment=5"):
        cache_features(store, path, encoder=run, frames_per_segment=5)
    with pytest.raises(MissingPathError, match="weights"):
        cache_features(store, path, visual_weights="none.pth")
    with pytest.raises(StoreError, match="no staged clip"):
        cache_features(write_store(tmp_path / "empty.zarr", ("a",), failed=("a",)), path, encoder=run)
    with only_one(tmp_path / ".c.h5.parts", "feature cache"), pytest.raises(BusyError):
        cache_features(store, path, encoder=run)


def test_interrupted_parts_of_other_settings_are_not_used(store: Path, run: Path, tmp_path: Path) -> None:
    from avel.stores.feature_parts import Parts

    path = tmp_path / "c.h5"
    other = Parts.of(path, {"other": 1})
    arrays = {"f_a": np.zeros((1, 3, 16)), "f_v": np.zeros((1, 3, 16))}
    other.write({"-v0": "-v0-1"}, arrays, cnn="cnn", hardware="cpu")
    summary = cache_features(store, path, encoder=run, config=CacheConfig())
    assert (summary.encoded, summary.resumed) == (10, 0)
    with h5py.File(path) as file:
        assert np.abs(file["f_a"][0]).max() > 0
