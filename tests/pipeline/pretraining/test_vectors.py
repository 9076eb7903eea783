"""Vectors of frozen CNNs: what the CNNs give, kept in parts, never taken for others."""

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import pytest
import torch
import torch.distributed as dist

from avel.digests import digest_of
from avel.errors import StoreError, TrainingError
from avel.pipeline.config import AugmentConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.pretraining import vectors
from avel.pipeline.pretraining.augment import augment, centre_crop, draw
from avel.pipeline.pretraining.loader import random_choices
from avel.pipeline.pretraining.parallel import process_group
from avel.pipeline.pretraining.vectors import FrozenVectors, compute_vectors, frozen_vectors
from avel.stores.clips import ClipStore
from avel.stores.feature_parts import Parts, Row
from tests.pipeline.caching.small_stores import RANDOM_TINY
from tests.pipeline.configs import pretrain_config
from tests.pipeline.pretraining.clip_store import GRID, make_store
from tests.pipeline.pretraining.two_ranks import run_two_ranks


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return make_store(tmp_path_factory.mktemp("store") / "clips.zarr", clips=5)


def tiny(**changes: object) -> Encoder:
    settings: dict[str, object] = {**RANDOM_TINY, "crop_size": 28}
    return build_encoder(pretrain_config(**(settings | changes))).eval()


def test_vectors_are_the_cnns_of_centre_crops(store: ClipStore) -> None:
    encoder = tiny()
    cnn_a, cnn_v = compute_vectors(encoder, store, store.staged, 2)
    assert cnn_a.shape == (5, 10, 128)
    assert cnn_v.shape == (5, 10, 2, 128)
    for clip, video_id in enumerate(store.staged):
        for place, frame in enumerate((1, 3)):
            wanted = [segment * GRID.frames_per_segment + frame for segment in range(10)]
            pictures = torch.from_numpy(store.frames(video_id, wanted)).permute(0, 3, 1, 2)
            with torch.no_grad():
                visual = encoder.cnn_visual(centre_crop(pictures[None], 28))[0]
                audio = encoder.cnn_audio(torch.from_numpy(store.log_mel(video_id))[None])[0]
            torch.testing.assert_close(cnn_v[clip, :, place].float(), visual, rtol=2e-3, atol=2e-3)
            torch.testing.assert_close(cnn_a[clip].float(), audio, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_augmented_vectors_are_the_cnns_of_augmented_frames(store: ClipStore, per: str) -> None:
    encoder = tiny()
    config = AugmentConfig(augment_per=per, crop_size=28, flip=True)  # type: ignore[arg-type]
    _, cnn_v = compute_vectors(encoder, store, store.staged[2:4], 2, augmentation=config)
    for clip, video_id in enumerate(store.staged[2:4], 2):
        for place, frame in enumerate((1, 3)):
            for segment in range(10):
                picture = store.frames(video_id, [segment * GRID.frames_per_segment + frame])
                number = int(digest_of(video_id), 16)
                drawn = draw(config, 0, place, number, 0 if per == "clip" else 1 + segment)
                single = torch.from_numpy(picture).permute(0, 3, 1, 2)[None]
                with torch.no_grad():
                    visual = encoder.cnn_visual(augment(single, [drawn], 28))[0, 0]
                torch.testing.assert_close(
                    cnn_v[clip - 2, segment, place].float(), visual, rtol=2e-3, atol=2e-3
                )


def test_the_draw_of_a_frame_depends_on_its_clip_alone(store: ClipStore) -> None:
    config = AugmentConfig(crop_size=28)
    some, every = (
        compute_vectors(tiny(), store, names, 2, augmentation=config)[1]
        for names in (store.staged[3:], store.staged)
    )
    torch.testing.assert_close(some, every[3:])


def test_vectors_of_each_augmentation_are_kept_apart_whatever_the_seed(
    store: ClipStore, tmp_path: Path
) -> None:
    def kept(**changes: object) -> torch.Tensor:
        config = pretrain_config(**changes).augmentation
        return frozen_vectors(tiny(), store, store.staged, 1, tmp_path, config)[1]

    first = kept()
    assert torch.equal(kept(seed=5, epochs=3), first)
    assert len([*tmp_path.iterdir()]) == 1
    others = [kept(**each) for each in ({"flip": True}, {"crop_scale": (0.5, 1.0)}, {"augment_per": "frame"})]
    others.append(frozen_vectors(tiny(), store, store.staged, 1, tmp_path)[1])
    assert len([*tmp_path.iterdir()]) == 5
    assert not any(torch.equal(other, first) for other in others)


def test_together_all_segments_take_the_frame_of_one_draw() -> None:
    cnn_v = torch.arange(4 * 3 * 8).reshape(4, 3, 8, 1).half()
    batches = FrozenVectors(torch.zeros(4, 3, 1).half(), cnn_v, batch_size=2, together=True)
    places = [vectors.flatten() % 8 for batch in batches.epoch(1) for vectors in batch.visual]
    assert all((place == place[0]).all() for place in places)
    assert len({float(place[0]) for place in places}) > 1


def test_cells_of_agva_are_kept_as_well(store: ClipStore) -> None:
    _, cnn_v = compute_vectors(tiny(agva=True), store, store.staged[:1], 2)
    assert cnn_v.shape == (1, 10, 2, 4, 128)


def test_vectors_too_large_for_float16_are_refused_with_their_clip_and_cnn(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, (first, second) = tiny(), store.staged[:2]
    forward, added = encoder.cnn_audio, iter((0.0, 1e6))
    monkeypatch.setattr(vectors, "FRAMES_AT_ONCE", {"cpu": 1})  # a clip at a time
    monkeypatch.setattr(encoder, "cnn_audio", lambda audio: forward(audio) + next(added))
    message = f"clip '{second}': vectors of the audio CNN are not finite in float16"
    with pytest.raises(TrainingError, match=message):
        compute_vectors(encoder, store, [first, second], 1)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the clips whose vectors a test computed."""
    return count_computed(monkeypatch.setattr)


def count_computed(put: Callable[[object, str, object], None]) -> list[str]:
    original, computed = vectors.compute_vectors, list[str]()

    def counting(encoder: Encoder, store: ClipStore, ids: list[str], *more: object) -> object:
        computed.extend(ids)
        return original(encoder, store, ids, *more)

    put(vectors, "compute_vectors", counting)
    return computed


def parts_of(folder: Path) -> dict[str, Path]:
    """The parts of one clip each: id -> file."""
    found = {}
    for path in folder.glob("*/*.h5"):
        with h5py.File(path) as file:
            found[file["video_ids"][0].decode()] = path
    return found


def test_kept_vectors_are_read_and_parts_that_are_there_stay(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: list[str]
) -> None:
    monkeypatch.setattr(vectors, "PART_VIDEOS", 2)
    first = frozen_vectors(tiny(), store, store.staged, 1, tmp_path)
    assert computed == [*store.staged]
    paths = parts_of(tmp_path)
    assert {*paths} == {"c0", "c2", "c4"}
    paths["c2"].unlink()
    computed.clear()
    second = frozen_vectors(tiny(seed=0), store, store.staged, 1, tmp_path)
    assert computed == ["c2", "c3"]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    fewer = frozen_vectors(tiny(), store, store.staged[1:4], 1, tmp_path)
    assert computed == ["c2", "c3"]
    assert all(torch.equal(a, b[1:4]) for a, b in zip(fewer, first, strict=True))


def one_of_two(rank: int, folder: str, store_url: str) -> None:
    """A process that computes its share of the parts and writes down which clips those were."""
    vectors.PART_VIDEOS = 1
    computed = count_computed(setattr)
    store = ClipStore.open(store_url)
    with process_group(torch.device("cpu")):
        cnn_a, cnn_v = frozen_vectors(tiny(), store, store.staged, 1, Path(folder) / "shared")
    found = {"computed": computed, "cnn_a": cnn_a, "cnn_v": cnn_v}
    torch.save(found, Path(folder) / f"{rank}.pt")


@pytest.mark.slow
def test_processes_share_the_parts_that_are_missing(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "PART_VIDEOS", 1)
    expected = frozen_vectors(tiny(), store, store.staged, 1, tmp_path / "shared")
    for video_id, path in parts_of(tmp_path / "shared").items():
        if video_id in ("c1", "c2", "c4"):
            path.unlink()
    run_two_ranks(one_of_two, tmp_path, store.location.url)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [each["computed"] for each in found] == [["c2", "c4"], ["c1"]]
    for each in found:
        torch.testing.assert_close((each["cnn_a"], each["cnn_v"]), expected)


def one_of_two_beside_another_run(rank: int, folder: str, store_url: str) -> None:
    """A process of two; another run writes the first clip after one has listed what is there."""
    vectors.PART_VIDEOS = 1
    original, store = Parts.finished, ClipStore.open(store_url)

    def listed(parts: Parts, sources: Mapping[str, str]) -> dict[str, Row]:
        Parts.finished = original  # type: ignore[method-assign]
        if rank == 0:
            found = original(parts, sources)
            dist.barrier()
            return found
        dist.barrier()
        first = store.staged[0]
        cnn_a, cnn_v = compute_vectors(tiny(), store, [first], 1)
        arrays = {"cnn_a": cnn_a.numpy(), "cnn_v": cnn_v.numpy()}
        parts.write({first: sources[first]}, arrays, cnn="", hardware="")
        return original(parts, sources)

    Parts.finished = listed  # type: ignore[method-assign]
    with process_group(torch.device("cpu")):
        cnn_a, _ = frozen_vectors(tiny(), store, store.staged, 1, Path(folder) / "shared")
    torch.save(cnn_a, Path(folder) / f"{rank}.pt")


@pytest.mark.slow
def test_processes_leave_no_clip_out_while_another_run_writes(store: ClipStore, tmp_path: Path) -> None:
    run_two_ranks(one_of_two_beside_another_run, tmp_path, store.location.url)
    expected = compute_vectors(tiny(), store, store.staged, 1)[0]
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)


def test_vectors_in_bfloat16_are_near_and_never_taken_for_others(store: ClipStore, tmp_path: Path) -> None:
    exact = frozen_vectors(tiny(), store, store.staged, 2, tmp_path)
    half = frozen_vectors(tiny(), store, store.staged, 2, tmp_path, dtype="bfloat16")
    for one, other in zip(exact, half, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(
            one.float(), other.float(), rtol=0.05, atol=0.05 * float(one.float().std())
        )
    again = frozen_vectors(tiny(), store, store.staged, 2, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again, exact, strict=True))


@pytest.mark.parametrize("change", ["cnn", "frames", "store"])
def test_vectors_of_other_inputs_are_computed_anew(
    store: ClipStore, tmp_path: Path, change: str, computed: list[str]
) -> None:
    frozen_vectors(tiny(), store, store.staged, 1, tmp_path)
    computed.clear()
    other = ClipStore.open(store.location.url)
    assert other.staged == store.staged
    if change == "store":
        other.digest = "other"  # as if other settings had staged the same clips
    encoder, frames = tiny(seed=7 if change == "cnn" else 0), 2 if change == "frames" else 1
    frozen_vectors(encoder, other, store.staged, frames, tmp_path)
    assert computed == [*store.staged]


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_a_damaged_part_is_named_and_computed_anew(
    store: ClipStore, tmp_path: Path, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    first = frozen_vectors(tiny(), store, store.staged, 1, tmp_path)
    (part,) = tmp_path.glob("*/*.h5")
    part.write_bytes(part.read_bytes()[:kept])
    again = frozen_vectors(tiny(), store, store.staged, 1, tmp_path)
    assert f"{part}: " in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))


def test_changed_values_of_a_part_are_named(store: ClipStore, tmp_path: Path) -> None:
    frozen_vectors(tiny(), store, store.staged, 1, tmp_path)
    (part,) = tmp_path.glob("*/*.h5")
    with h5py.File(part, "r+") as file:
        file["cnn_v"][2] = 0
    with pytest.raises(StoreError, match="row 2 of cnn_v is damaged") as caught:
        frozen_vectors(tiny(), store, store.staged, 1, tmp_path)
    assert caught.value.hint == f"remove it, and its clips are computed again: rm {part}"


def test_a_batch_takes_one_frame_of_each_segment() -> None:
    cnn_v = torch.arange(4 * 3 * 2).reshape(4, 3, 2, 1).half()
    batches = FrozenVectors(torch.zeros(4, 3, 1).half(), cnn_v, batch_size=2, seed=9)
    clips = []
    for batch in batches.epoch(1):
        for place, clip in enumerate(batch.clips):
            chosen = random_choices(9, 1, clip, 3, 2)
            expected = [float(cnn_v[clip, segment, frame]) for segment, frame in enumerate(chosen)]
            assert batch.visual[place].flatten().tolist() == expected
            clips.append(clip)
    assert sorted(clips) == [0, 1, 2, 3]
