"""AV-BT on clips of differing lengths: what is after the end of a clip enters nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.avbt import avbt_loss, correlation
from avel.pipeline.pretraining.monitor import relative_std
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.training import Trainer
from tests.pipeline.configs import changed, pretrain_config
from tests.pipeline.pretraining.clip_store import GRID, make_store
from tests.pipeline.pretraining.small_runs import CONFIG, FROZEN, same_weights

LENGTHS = torch.tensor([2, 5, 1, 4])
MASK = torch.arange(5) < LENGTHS[:, None]


def embeddings(padding: float) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    z = [torch.randn(4, 5, 6, generator=random, dtype=torch.float64) for _ in range(2)]
    return [torch.where(MASK[..., None], each, padding) for each in z]


def test_correlations_are_those_of_each_clip_of_two_segments_or_more_cut_at_its_end() -> None:
    z_a, z_v = embeddings(7.0)
    clips = [
        correlation(z_a[clip : clip + 1, :length], z_v[clip : clip + 1, :length])
        for clip, length in enumerate(LENGTHS)
        if length > 1
    ]
    torch.testing.assert_close(correlation(z_a, z_v, mask=MASK), torch.stack(clips).mean(0))
    joined = [each[MASK][None] for each in (z_a, z_v)]
    torch.testing.assert_close(correlation(z_a, z_v, "batch", MASK), correlation(*joined, "batch"))
    torch.testing.assert_close(relative_std(z_a, MASK), relative_std(joined[0]))
    torch.testing.assert_close(
        avbt_loss(z_a, z_v, mask=MASK).total, avbt_loss(*embeddings(-3.0), mask=MASK).total
    )


def test_clips_of_one_segment_alone_correlate_nothing() -> None:
    z_a, z_v = embeddings(7.0)
    c = correlation(z_a, z_v, mask=torch.arange(5) < torch.ones(4, 1))
    torch.testing.assert_close(c, torch.zeros_like(c))


@pytest.mark.parametrize(
    "changes",
    [{}, {"correlate": "batch"}, {"agva": True}, {"backbone_batchnorm": "frozen", "clips_at_once": 3}],
)
def test_a_step_is_the_same_whatever_is_after_the_ends(changes: dict[str, Any]) -> None:
    found = []
    for padding in (0.0, torch.nan):
        config = pretrain_config(
            **{
                "visual_backbone": "tiny",
                "audio_backbone": "tiny",
                "visual_weights": "random",
                "audio_weights": "random",
                "hidden": 4,
                "projector": "8-12-12",
                "crop_size": 32,
                "optimizer": "adamw",
                **changes,
            }
        )
        projected = ProjectedEncoder(build_encoder(config), config).double()
        trainer = Trainer(projected, make_optimizer(projected, config), config, torch.device("cpu"))
        trainer.model.train()
        random = torch.Generator().manual_seed(1)
        frames = torch.rand(4, 5, 3, 32, 32, generator=random, dtype=torch.float64)
        log_mel = torch.randn(4, 5, 96, 64, generator=random, dtype=torch.float64)
        frames[~MASK], log_mel[~MASK] = padding, padding
        values = trainer.step(frames, log_mel, MASK)
        found.append((values, {name: value.clone() for name, value in projected.state_dict().items()}))
    assert found[0][0].isfinite().all()
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, FROZEN])
def test_a_run_is_the_same_whatever_is_after_the_ends(settings: dict[str, Any], tmp_path: Path) -> None:
    lengths = [10, 7, 3, 5, 10, 2]
    config = changed(CONFIG, **settings, epochs=2, probe_every=1)
    for after in (1, 2):
        store = make_store(tmp_path / f"{after}.zarr", len(lengths), lengths=lengths, after=after)
        assert store.lengths == dict(zip(store.video_ids, lengths, strict=True))
        pretrain(store, tmp_path / str(after), config)
    assert same_weights(tmp_path / "1", tmp_path / "2")
    padded = make_store(tmp_path / "padded.zarr", len(lengths))
    assert padded.lengths is None
    pretrain(padded, tmp_path / "padded", config)
    assert not same_weights(tmp_path / "1", tmp_path / "padded")
    assert GRID.segments == max(lengths)
