"""What a trained head computes on the way to its scores, as the plots and the report take it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avel.heads.train import train_head
from avel.heads.training.records import load_model, read_trial
from avel.views.inside import look_inside, videos_of
from avel.views.reading import read_run
from tests.heads.parsing import T, write_parsing_cache
from tests.heads.synthetic import write_cache


@pytest.mark.parametrize("head", ["dam", "mlp"])
def test_fused_vectors_are_those_that_the_head_names_or_its_classifier_reads(
    head: str, tmp_path: Path
) -> None:
    cache = write_cache(tmp_path / "c.h5")
    train_head(cache, tmp_path / "run", head=head, epochs=1, standardise=False)
    run, places = read_run(tmp_path / "run"), np.array([3, 0])
    fused = look_inside(run, 0, places).fused
    model = load_model(run.run, read_trial(run.run, run.trials[0]))
    videos = videos_of(run, places)
    f_a, f_v = (torch.from_numpy(run.cache.read(name, videos)) for name in ("f_a", "f_v"))
    with torch.no_grad():
        if head == "dam":
            expected = torch.cat((model.head.audio(f_a), model.head.visual(f_v)), -1)
        else:
            expected = f_a + f_v
    np.testing.assert_allclose(fused, expected.numpy(), atol=1e-6)


def test_fused_vectors_of_weak_psp_are_not_its_scores(tmp_path: Path) -> None:
    """Its last Linear is a gate, which reads the scores."""
    cache = write_cache(tmp_path / "c.h5")
    train_head(cache, tmp_path / "run", head="psp", supervision="weak", epochs=1)
    assert look_inside(read_run(tmp_path / "run"), 0, np.array([3, 0])).fused.shape == (2, 6, 256)


def test_fused_vectors_of_two_tracks_are_side_by_side(tmp_path: Path) -> None:
    cache = write_parsing_cache(tmp_path / "c.h5")
    train_head(cache, tmp_path / "run", head="han", supervision="weak", epochs=1, device="cpu")
    fused = look_inside(read_run(tmp_path / "run"), 0, np.array([1, 0])).fused
    assert fused.shape == (2, T, 2 * 512)
