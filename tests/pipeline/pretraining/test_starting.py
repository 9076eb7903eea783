"""Runs that start from another one: its encoder, its projector, its form, and what does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from avel.cli import cli
from avel.config import to_toml
from avel.console import DONE, run
from avel.errors import MissingPathError, StoreError
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.saved import save_encoder
from avel.pipeline.pretraining.checkpoint import CHECKPOINT
from avel.pipeline.pretraining.pretrain import pretrain
from avel.stores.clips import ClipStore
from avel.stores.runs import Run
from tests.pipeline.configs import changed, made
from tests.pipeline.pretraining.small_runs import CONFIG, FROZEN, same_weights


def test_a_run_starts_from_another_and_goes_on_like_any(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "first", CONFIG, **FROZEN)
    tuning = replace(
        CONFIG, start_from=str(tmp_path / "first"), standardise=True, epochs=2, backbone_batchnorm="frozen"
    )
    pretrain(store, tmp_path / "still", tuning, lr_scale=0.0, lr_scale_backbone=0.0)
    assert same_weights(tmp_path / "first", tmp_path / "still")
    pretrain(store, tmp_path / "tuned", tuning, lr_scale_backbone=1.0)
    moved = Run.open(tmp_path / "tuned", "pretrain").metrics()[-1]["moved"]
    assert all(0 < fraction < 1 for fraction in moved.values()), "counted from where the first run ended"


def test_weights_are_not_told_where_those_of_another_run_are_taken(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(store, tmp_path / "first", CONFIG, epochs=1)
    (tmp_path / "tiny.toml").write_text(to_toml(CONFIG, "pretrain", ["visual.weights", "audio.weights"]))
    words = ["pretrain", store.location.url, str(tmp_path / "run"), "--epochs", "1", "--config"]
    words += [str(tmp_path / "tiny.toml"), "--start-from", str(tmp_path / "first")]
    assert run(cli, words) == DONE
    told = capsys.readouterr().err
    assert '[pretrain.visual]\nbackbone = "tiny"\n' in told
    assert f'start_from = "{tmp_path / "first"}"' in told
    assert not any(idle in told for idle in ("weights =", "standardise ="))


def test_what_a_run_cannot_start_from_is_refused(store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="checkpoint"):
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path))
    pretrain(store, tmp_path / "first", CONFIG)
    with pytest.raises(StoreError, match="of another model: projector is '16-16' there") as caught:
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path / "first"), projector="16-8")
    assert caught.value.hint == "--set projector=16-16"
    with pytest.raises(StoreError, match="hidden is 4 there and 8 here"):
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path / "first"), hidden=8)
    pretrain(store, tmp_path / "cells", CONFIG, agva=True, epochs=1)
    with pytest.raises(StoreError, match="crop_size is 28 there and 48 here"):
        pretrain(store, tmp_path / "run", CONFIG, agva=True, start_from=str(tmp_path / "cells"), crop_size=48)
    (tmp_path / "first" / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(StoreError, match="damaged"):
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path / "first"))
    assert not (tmp_path / "run" / "run.json").exists()


def test_without_agva_the_crop_may_be_another(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "first", CONFIG, epochs=1)
    pretrain(store, tmp_path / "larger", CONFIG, start_from=str(tmp_path / "first"), crop_size=32, epochs=1)


def test_a_run_that_starts_from_another_needs_no_weights_and_treats_its_cnns_alike(
    store: ClipStore, tmp_path: Path
) -> None:
    save_file(made(VISUAL_BACKBONES, "tiny").state_dict(), tmp_path / "visual.safetensors")
    begun = changed(CONFIG, epochs=2, visual_weights=str(tmp_path / "visual.safetensors"))
    pretrain(store, tmp_path / "first", begun)
    for start, name in (("first", "second"), ("second", "third")):
        (tmp_path / "visual.safetensors").unlink(missing_ok=True)
        again = changed(begun, start_from=str(tmp_path / start), visual_weights="random")
        pretrain(store, tmp_path / name, again)
        encoder = build_encoder(changed(again, start_from=str(tmp_path / name)))
        assert (encoder.visual.pretrained, encoder.audio.pretrained) == (True, False)
        assert encoder.batch_statistics == {"visual": False, "audio": True}
        lines = Run.open(tmp_path / name).metrics()
        assert lines[-1]["moved"]["visual_cnn"] < 0.01 * lines[-1]["moved"]["audio_cnn"]


def test_the_form_of_the_weights_is_that_of_the_run_one_starts_from(store: ClipStore, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"visual_backbone": "mobilenet_v2", "visual_weights": "random", "crop_size": 32}
    encoder = build_encoder(changed(CONFIG, **changes))
    encoder.visual.become("tensorflow")
    encoder.spec = replace(encoder.spec, visual=replace(encoder.spec.visual, variant="tensorflow"))
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    started = build_encoder(changed(CONFIG, **changes, start_from=str(tmp_path)))
    assert started.visual.variant == started.spec.visual.variant == "tensorflow"
    assert all(parameter.requires_grad for parameter in started.parameters())
