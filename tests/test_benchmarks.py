"""What the benchmarks count beside what they time, against counts written out here."""

import dataclasses
import doctest
import math
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from avel.heads.config import TrainConfig
from avel.heads.training.fit import make_model
from avel.heads.training.trials import Trial
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.vectors import compute_vectors
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from benchmarks import folds, photo_groups
from benchmarks.heads_baselines import PlainLoop
from benchmarks.heads_zoo import Products, Shapes, bare, zoo
from benchmarks.last_block import WithLastBlock, activations
from benchmarks.step_work import step_work
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, write_store
from tests.pipeline.configs import pretrain_config


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("of_input", [True, False])
def test_operations_of_a_convolution_and_its_gradients(groups: int, of_input: bool) -> None:
    convolution = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups, bias=False)
    frames = torch.randn(4, 8, 10, 10, requires_grad=of_input)
    multiplications = 0
    for _clip in range(4):
        for _place in range(5 * 5):
            for _channel in range(16):
                multiplications += (8 // groups) * 3 * 3
    counted = step_work(lambda: convolution(frames).sum().backward())
    assert counted.operations == 2 * multiplications * (3 if of_input else 2)


def test_operations_of_a_transposed_convolution() -> None:
    convolution = nn.ConvTranspose2d(8, 16, 3, stride=2, groups=2, bias=False)
    frames = torch.randn(4, 8, 5, 5, requires_grad=True)
    counted = step_work(lambda: convolution(frames).sum().backward())
    assert counted.operations == 3 * 2 * 4 * (5 * 5) * 8 * (16 // 2) * 3 * 3


def test_bytes_are_what_each_operator_reads_and_writes() -> None:
    a, b = torch.randn(10, 20), torch.randn(20, 30)
    product = step_work(lambda: a @ b)
    assert product.bytes_touched == 4 * (10 * 20 + 20 * 30 + 10 * 30)
    assert product.operations == 2 * 10 * 20 * 30
    half = torch.zeros(100, dtype=torch.bfloat16)
    assert step_work(lambda: half.add_(1)).bytes_touched == 2 * (100 + 100)
    assert step_work(lambda: a.T.reshape(5, 40)[1:].unsqueeze(0)).bytes_touched == 2 * 4 * 200, "one copy"
    assert step_work(lambda: torch.empty(1000)).bytes_touched == 0


def test_products_of_a_training_step_are_those_of_its_layers() -> None:
    """A Linear has three; a Bi-LSTM, each way, three of its inputs at once and three of each state."""
    clips, segments, width, hidden = 4, 5, 6, 7
    layer, lstm = nn.Linear(width, 3), nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
    features = torch.randn(clips, segments, width, requires_grad=True)
    with Products() as of_layer:
        layer(features.flatten(0, 1)).sum().backward()
    rows = clips * segments
    assert operations(of_layer.found) == 3 * rows * width * 3
    with Products() as of_lstm:
        lstm(features)[0].sum().backward()
    one_way = rows * width * 4 * hidden + segments * clips * hidden * 4 * hidden
    assert operations(of_lstm.found) == 2 * 3 * one_way
    bare(of_lstm.found)()


def test_every_head_is_a_line_but_those_for_several_labels() -> None:
    """No time at all: each head is listed, and none is timed."""
    lines = zoo(["han", "mlp", "psp"], minutes=0, rounds=1, clock=time.process_time)
    assert [line["what"] for line in lines] == ["mlp, encoded", "psp, cnn", "psp, maps"]
    assert all(line["seconds"] is None for line in lines)
    maps = zoo(["mlp", "psp"], minutes=0, rounds=1, clock=time.process_time, inputs=["maps"])
    assert [line["what"] for line in maps] == ["psp, maps"]


def test_the_plain_loop_trains_on_every_train_sample_of_a_cache(tmp_path: Path) -> None:
    cache_features(write_store(tmp_path / "store.zarr", NAMES), tmp_path / "c.h5", **RANDOM_TINY)
    cache = FeatureCache.open(tmp_path / "c.h5")
    loop = PlainLoop(cache.path, cache.shapes["f_a"][-1], cache.classes, workers=0, batch_size=2)
    labels = torch.cat([label for _, _, label in loop.loader])
    assert len(labels) == (cache.samples.split == "train").sum() == 6
    before = loop.model.mlp[0].weight.clone()
    loop.epoch()
    assert not torch.equal(loop.model.mlp[0].weight, before)


def operations(shapes: list[Shapes]) -> int:
    """Multiplications of all products."""
    return sum(math.prod(left) * right[-1] for left, right in shapes)


def test_folds_are_predicted_by_encoders_that_have_not_seen_them(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(20)]
    store = write_store(tmp_path / "store.zarr", names)
    (tmp_path / "groups.csv").write_text("video_id,group\n" + "".join(f"{name},{name}\n" for name in names))
    small = {"hidden": 4, "visual_width": 8, "audio_width": 8, "projector": "8-8", "batch_size": 4}
    config = pretrain_config(**RANDOM_TINY, **small, frozen_frames=2, freeze_backbone=True, crop_size=32)
    clips = folds.read_clips(store, tmp_path, config, tmp_path / "groups.csv")
    assert {*clips.samples.video_id} <= {name for number, name in enumerate(names) if number % 4 != 3}

    def changed(fold: int) -> torch.Tensor:
        """Features where the clips of one fold are others in training."""
        place = clips.samples.videos[torch.from_numpy(clips.fold == fold)]
        audio, visual = (each.clone() for each in clips.drawn(2, False))
        audio[place] += 1 + audio[place].flip(1)
        other = dataclasses.replace(clips, drawn=lambda frames, augmented: (audio, visual))
        return folds.avbt(other, 0, 3, epochs=2)[0][0]

    (usual, visual), weights = folds.avbt(clips, 0, 3, epochs=2)
    same = [torch.equal(changed(fold), usual) for fold in range(folds.FOLDS)]
    assert same == [True, True, False, False, False], "fold 0 is held out, fold 1 chooses the epoch"
    random = folds.avbt(clips, 0, 3, epochs=0)[0][0]
    assert not torch.equal(random, usual)

    unseen = folds.Unseen(clips, 0, (usual, usual), "usual", {})
    data = unseen.data(TrainConfig())
    assert (data.widths.audio, data.widths.visual) == (8, 8)
    assert torch.equal(data.features.of(torch.arange(20))[0], usual)
    tuned = folds.Unseen(clips, 0, clips.middle, "tuned", weights).data(TrainConfig())
    temporal = make_model(Trial("", TrainConfig()), tuned).temporal
    assert temporal is not None
    torch.testing.assert_close(temporal(*tuned.features.of(torch.arange(20))), (usual, visual))


def test_the_last_block_gives_the_vectors_of_the_whole_cnn(tmp_path: Path) -> None:
    store = ClipStore.open(write_store(tmp_path / "store.zarr", NAMES))
    options = RANDOM_TINY | {"visual_backbone": "mobilenet_v2"}
    config = pretrain_config(**options, freeze_backbone=True, crop_size=32, projector="8-8", hidden=4)
    encoder, names = build_encoder(config), store.staged[:2]
    for module in encoder.visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
    whole = compute_vectors(encoder, store, names, 2)[1]
    tuned = WithLastBlock(encoder, config).eval()
    inputs = activations(encoder, store, names, 2)
    parts = [tuned.vectors(inputs[:, :, frame].float()) for frame in range(2)]
    torch.testing.assert_close(torch.stack(parts, 2), whole.float(), atol=2e-3, rtol=1e-2)

    learned = {name for name, each in encoder.visual.named_parameters() if each.requires_grad}
    assert {name.split(".")[1] for name in learned} == {"17", "18"}
    statistics = [each.clone() for each in encoder.visual.buffers()]
    tuned.train()(inputs[:, :, 0].float(), torch.zeros(2, store.grid.segments, encoder.audio.width))
    assert all(map(torch.equal, encoder.visual.buffers(), statistics)), "batch norms keep their statistics"


def test_clips_of_one_photo_are_one_group() -> None:
    assert doctest.testmod(photo_groups) == (0, 2)
