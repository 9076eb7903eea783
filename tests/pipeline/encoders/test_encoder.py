"""The two-stream encoder: sizes, AGVA, files, digests."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from avel.errors import ConfigError, MissingPathError, StoreError
from avel.heads.config import TrainConfig
from avel.nn import Standard
from avel.pipeline.config import VISUAL_BACKBONES, PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.encoder import Encoder, check_crop, map_cells
from avel.pipeline.encoders.header import Pretrained, encoder_file, read_pretrained
from avel.pipeline.encoders.saved import cnn_digest, encoder_digest, load_encoder, save_encoder
from avel.stores.runs import Run
from tests.pipeline.configs import changed, made, pretrain_config

TINY = pretrain_config(
    visual_backbone="tiny",
    audio_backbone="tiny",
    visual_weights="random",
    audio_weights="random",
    hidden=8,
    crop_size=32,
)


def clips(count: int = 2, segments: int = 3, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, segments, 3, size, size), dtype=torch.uint8, generator=generator)
    return frames, torch.randn(count, segments, 96, 64, generator=generator)


def tiny(**changes: object) -> Encoder:
    return build_encoder(changed(TINY, **changes)).eval()


def test_the_papers_encoder_has_the_papers_sizes() -> None:
    encoder = build_encoder(pretrain_config(visual_weights="random", audio_weights="random")).eval()
    frames, log_mel = clips(1, 2, 64)
    with torch.no_grad():
        cnn_a, cnn_v = encoder.cnn(frames, log_mel)
        narrow_a, narrow_v = encoder.temporal.narrow(cnn_a, cnn_v)
        f_a, f_v = encoder(frames, log_mel)
    assert (cnn_a.shape, cnn_v.shape) == ((1, 2, 128), (1, 2, 2048))
    assert (narrow_a.shape, narrow_v.shape) == ((1, 2, 128), (1, 2, 512))
    assert f_a.shape == f_v.shape == (1, 2, 256)
    assert torch.equal(narrow_a, cnn_a), "128 features need no Linear"


def test_whole_numbers_and_fractions_of_255_are_the_same_frames() -> None:
    frames, log_mel = clips()
    with torch.no_grad():
        torch.testing.assert_close(tiny()(frames, log_mel), tiny()(frames / 255, log_mel))


def test_maps_are_channels_last_and_their_mean_is_the_vector() -> None:
    frames, _ = clips()
    encoder = tiny()
    with torch.no_grad():
        maps = encoder.maps(frames)
        assert maps.shape == (2, 3, 2, 2, 128)
        torch.testing.assert_close(maps.mean((2, 3)), encoder.cnn_visual(frames))


def test_segments_see_each_other_only_within_their_clip() -> None:
    frames, log_mel = clips()
    other = frames.clone()
    other[1, 2] = 0
    with torch.no_grad():
        before, after = tiny()(frames, log_mel)[1], tiny()(other, log_mel)[1]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1, 0], after[1, 0]), "the Bi-LSTM looks back from the last segment"


def test_with_agva_the_cells_travel_to_the_temporal_half() -> None:
    encoder = tiny(agva=True)
    frames, log_mel = clips()
    with torch.no_grad():
        cnn_a, cnn_v = encoder.cnn(frames, log_mel)
        assert cnn_v.shape == (2, 3, 4, 128)
        torch.testing.assert_close(encoder.temporal(cnn_a, cnn_v), encoder(frames, log_mel))
        assert encoder.temporal.attention is not None
        attended, weights = encoder.temporal.attention(cnn_a, cnn_v)
        assert weights.shape == (2, 3, 4)
        torch.testing.assert_close(
            encoder.temporal.narrow(cnn_a, cnn_v)[1], encoder.temporal.visual_linear(attended)
        )


def test_agva_attends_over_standardised_cells_without_a_copy_of_them() -> None:
    encoder = tiny(agva=True).double()
    assert encoder.temporal.attention is not None
    cnn_a, cnn_v = torch.randn(2, 3, 128).double(), 3 + 5 * torch.rand(2, 3, 4, 128).double()
    encoder.temporal.visual_standard.fit(cnn_v.flatten(0, -2))
    visual, _ = encoder.temporal.attention(cnn_a, encoder.temporal.visual_standard(cnn_v))
    torch.testing.assert_close(
        encoder.temporal.narrow(cnn_a, cnn_v)[1], encoder.temporal.visual_linear(visual)
    )


def test_agva_alone_of_the_temporal_half_follows_autocast() -> None:
    encoder = tiny(agva=True)
    assert encoder.temporal.attention is not None
    scored: list[torch.dtype] = []
    encoder.temporal.attention.video.register_forward_hook(lambda *call: scored.append(call[-1].dtype))
    cnn_a, cnn_v = torch.randn(2, 3, 128), torch.rand(2, 3, 4, 128).bfloat16()
    exact = encoder.temporal(cnn_a, cnn_v)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder.temporal(cnn_a, cnn_v)
    assert scored == [torch.float32, torch.bfloat16]
    assert {f.dtype for f in (*exact, *rough)} == {torch.float32}
    torch.testing.assert_close(rough, exact, atol=1e-2, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_a_large_batch_goes_through_a_cnn_in_pieces_where_nothing_is_learned(
    monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    encoder = tiny().train(training)
    frames, _ = clips()
    monkeypatch.setattr("avel.pipeline.encoders.encoder.PIXELS_AT_ONCE", 3 * frames.shape[-1] ** 2)
    sizes = []
    encoder.visual.layers[2].register_forward_hook(lambda module, inputs, result: sizes.append(len(result)))
    whole = encoder.cnn_visual(frames)
    with torch.no_grad():
        pieces = encoder.cnn_visual(frames)
    torch.testing.assert_close(pieces, whole)
    assert sizes == (
        [6, 6] if training else [6, 3, 3]
    )  # a piece has statistics of its own where they are learned


@pytest.mark.parametrize(("crop_size", "cells"), [(28, 4), (32, 4), (33, 9), (64, 16)])
def test_cells_of_a_map_are_counted_without_a_trace(crop_size: int, cells: int) -> None:
    visual = tiny().visual.train()
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    assert map_cells(visual, crop_size) == cells
    assert visual.training
    assert all(torch.equal(value, before[name]) for name, value in visual.state_dict().items())


def test_a_saved_encoder_comes_back_whole(tmp_path: Path) -> None:
    encoder = tiny(agva=True, seed=3)
    save_encoder(encoder, tmp_path / "encoder.safetensors", epoch=7)
    frames, log_mel = clips()
    for place in (tmp_path, tmp_path / "encoder.safetensors"):
        loaded = load_encoder(place)
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        with torch.no_grad():
            assert torch.equal(loaded(frames, log_mel)[1], encoder(frames, log_mel)[1])
        assert encoder_digest(loaded) == encoder_digest(encoder)


@pytest.mark.shared
def test_the_form_of_loaded_weights_survives_the_file(data: Path, tmp_path: Path) -> None:
    encoder = tiny(
        visual_backbone="mobilenet_v2", visual_weights=str(data / "weights/mobilenet_v2_imagenet.safetensors")
    )
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    frames, _ = clips(1, 1, 64)
    with torch.no_grad():
        torch.testing.assert_close(load_encoder(tmp_path).cnn_visual(frames), encoder.cnn_visual(frames))


def test_the_digest_follows_weights_and_spec() -> None:
    encoder = tiny()
    first = encoder_digest(encoder)
    assert encoder_digest(tiny()) == first
    assert encoder_digest(tiny(seed=1)) != first
    assert encoder_digest(tiny(crop_size=48)) != first
    encoder.temporal.visual_lstm.bias_ih_l0.data[0] += 1e-3
    assert encoder_digest(encoder) != first
    assert cnn_digest(encoder) == cnn_digest(tiny()), "the CNNs alone have not changed"


def test_no_encoder_and_no_encoder_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"encoder\.safetensors"):
        load_encoder(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "encoder.safetensors")
    with pytest.raises(StoreError, match="no encoder of format"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(StoreError, match="damaged"):
        load_encoder(tmp_path)


def test_a_run_without_an_encoder_says_what_it_is(tmp_path: Path) -> None:
    Run.create(tmp_path / "heads", "heads", TrainConfig(), inputs={})
    with pytest.raises(
        StoreError, match="made by avel train-head, need one made by avel pretrain"
    ) as refused:
        encoder_file(tmp_path / "heads")
    assert refused.value.hint == "avel pretrain STORE RUN trains encoders"
    Run.create(tmp_path / "begun", "pretrain", PretrainConfig(), inputs={})
    with pytest.raises(MissingPathError, match="no encoder yet") as refused_too:
        encoder_file(tmp_path / "begun")
    assert refused_too.value.hint == "the same avel pretrain command goes on"


def test_loaded_batch_norms_keep_their_statistics_and_random_ones_learn_them(tmp_path: Path) -> None:
    save_file(made(VISUAL_BACKBONES, "tiny").state_dict(), tmp_path / "visual.safetensors")
    encoder = tiny(visual_weights=str(tmp_path / "visual.safetensors")).train()
    assert not encoder.visual.training
    assert encoder.audio.training
    before = encoder.visual.layers[1].running_mean.clone()
    encoder(*clips())
    assert torch.equal(encoder.visual.layers[1].running_mean, before)
    forced = tiny(visual_weights=str(tmp_path / "visual.safetensors"), backbone_batchnorm="batch")
    assert forced.train().visual.training


def test_an_encoder_is_laid_out_channels_last(tmp_path: Path) -> None:
    save_encoder(tiny(), tmp_path / "encoder.safetensors")
    for encoder in (tiny(), load_encoder(tmp_path)):
        weight = encoder.visual.layers[3].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_standardisation_takes_mean_and_std() -> None:
    standard = Standard(3)
    vectors = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 1.0]])
    assert torch.equal(standard(vectors), vectors)
    standard.fit(vectors)
    expected = torch.tensor([[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]]) / torch.tensor([2**0.5, 1.0, 2**0.5])
    torch.testing.assert_close(standard(vectors), expected)


def test_the_temporal_half_stays_in_float32_under_autocast() -> None:
    frames, log_mel = clips()
    encoder = tiny()
    with torch.no_grad():
        cnn = encoder.cnn(frames, log_mel)
        with torch.autocast("cpu", torch.bfloat16):
            f_a, f_v = encoder.temporal(*cnn)
        assert f_a.dtype == f_v.dtype == torch.float32
        torch.testing.assert_close((f_a, f_v), encoder.temporal(*cnn))


def test_a_compiled_cnn_takes_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda way: compile_with(way, backend=counting))
    encoder = tiny().eval()
    frames = [torch.rand(clips, 3, 3, 28, 28) for clips in (2, 3, 5)]
    with torch.enable_grad():
        expected = [encoder.cnn_visual(some) for some in frames]
        compiled = tiny().eval()
        compiled.compiles = True
        found = [compiled.cnn_visual(some) for some in frames]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert len(graphs) == 1, "compiled once"


@pytest.mark.parametrize("text", ["", "7", '{"visual": true}', "[" * 100_000])
def test_a_header_that_does_not_say_which_cnns_were_pretrained_is_named(text: str) -> None:
    whole = {"pretrained": '{"visual": true, "audio": false}'}
    assert read_pretrained(Path("x"), whole) == Pretrained(visual=True, audio=False)
    with pytest.raises(StoreError, match="x: pretrained"):
        read_pretrained(Path("x"), {"pretrained": text})


def test_a_crop_that_a_cnn_cannot_read_is_named_with_its_own() -> None:
    with pytest.raises(ConfigError, match="crop_size=16: vgg19 cannot read such frames") as caught:
        check_crop(made(VISUAL_BACKBONES, "vgg19"), 16)
    assert caught.value.hint == "--crop-size 224"
    tiny = made(VISUAL_BACKBONES, "tiny").train()
    check_crop(tiny, 28)
    assert tiny.training
    assert not tiny.layers[1].num_batches_tracked
