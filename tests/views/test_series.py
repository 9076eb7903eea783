"""A sweep over any setting: which were swept, its values in order, its lines, and each trial's accuracy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.heads.train import sweep, train_head
from avel.stores.features import FeatureCache
from avel.views.reading import read_run
from avel.views.series import runs_below, sweep_of, swept_settings
from tests.heads.synthetic import write_cache

OPTIONS: dict[str, Any] = {"epochs": 1, "d_h": 8, "d_e": 8, "seeds": 2, "device": "cpu"}
MLP: dict[str, Any] = {"head": "mlp", "epochs": 1, "seeds": 2, "device": "cpu"}


def test_numbers_rise_and_every_trial_is_counted_at_its_value(tmp_path: Path) -> None:
    sweep(write_cache(tmp_path / "f.h5"), tmp_path / "runs" / "a", {"theta": [0.03, 0.0]}, **OPTIONS)
    found = sweep_of(runs_below(tmp_path / "runs"), "test")
    assert (found.setting, found.label) == ("theta", "θ")
    assert found.help == "Decay of attention with time difference, Eq. 4"
    assert (found.values, found.ordered) == (("0", "0.03"), True)
    (line,) = found.lines
    assert (line.name, line.place) == ("", (0, 1))
    own = read_run(tmp_path / "runs" / "a")
    assert own.trials == ("theta=0.03,seed=0", "theta=0.03,seed=1", "theta=0.0,seed=0", "theta=0.0,seed=1")
    right = [100 * np.mean(own.prediction[trial, own.split == "test"] == own.label[own.split == "test"])
             for trial in range(4)]  # fmt: skip
    np.testing.assert_allclose(line.score_percent, [right[2:], right[:2]])
    np.testing.assert_allclose(
        [spread.mean for spread in line.spreads], [sum(right[2:]) / 2, sum(right[:2]) / 2]
    )


def test_words_stand_in_the_order_given(tmp_path: Path) -> None:
    sweep(write_cache(tmp_path / "f.h5"), tmp_path / "run", {"modality": ["visual", "both", "audio"]}, **MLP)
    found = sweep_of(runs_below(tmp_path / "run"), "val")
    assert (found.values, found.ordered, found.split) == (("visual", "both", "audio"), False, "val")
    assert [len(values) for values in found.lines[0].score_percent] == [2, 2, 2]


def test_a_folder_of_runs_that_differ_in_a_setting(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "f.h5")
    for name, lr in (("a", 1e-3), ("b", 1e-4), ("c", 1e-2)):
        train_head(cache, tmp_path / "runs" / name, lr=lr, together="never", **MLP)
    found = sweep_of(runs_below(tmp_path / "runs"), "test")
    assert (found.setting, found.values) == ("lr", ("0.0001", "0.001", "0.01"))


def test_each_setting_of_the_others_is_a_line_of_its_own(tmp_path: Path) -> None:
    settings = {"theta": [0, 0.1], "routing": ["printed", "cross"]}
    sweep(write_cache(tmp_path / "f.h5"), tmp_path / "run", settings, **OPTIONS)
    runs = runs_below(tmp_path / "run")
    assert set(swept_settings(runs)) == {"theta", "routing"}
    with pytest.raises(ConfigError, match=r"several settings were swept: routing, theta\n.*--setting"):
        sweep_of(runs, "test")
    with pytest.raises(UnknownNameError, match="no swept setting named 'lr'"):
        sweep_of(runs, "test", "lr")
    found = sweep_of(runs, "test", "theta")
    assert [line.name for line in found.lines] == ["routing=printed", "routing=cross"]
    order = {name: place for place, name in enumerate(runs[0].trials)}
    for line in found.lines:
        for place, theta in enumerate(("0.0", "0.1")):
            trials = [order[f"theta={theta},{line.name},seed={seed}"] for seed in (0, 1)]
            np.testing.assert_allclose(line.score_percent[place], 100 * runs[0].score("test")[trials])


def test_runs_of_another_cache_are_a_line_of_their_own(tmp_path: Path) -> None:
    caches = [write_cache(tmp_path / f"{seed}.h5", seed=seed) for seed in (0, 1)]
    for name, cache, lr in (("a", 0, 1e-3), ("b", 0, 1e-2), ("c", 1, 1e-3), ("d", 1, 1e-2)):
        train_head(caches[cache], tmp_path / "runs" / name, lr=lr, **MLP)
    digests = [FeatureCache.open(cache).digest for cache in caches]
    found = sweep_of(runs_below(tmp_path / "runs"), "test")
    assert [line.name for line in found.lines] == [f"cache={digest}" for digest in digests]
    assert [len(values) for line in found.lines for values in line.score_percent] == [2, 2, 2, 2]


def test_scores_in_different_metrics_are_not_drawn_in_one_chart(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "f.h5")
    for task in ("single_label", "multi_label"):
        train_head(cache, tmp_path / "runs" / task, task=task, **MLP)
    with pytest.raises(StoreError, match=r"F1 of segments .* and accuracy .* cannot compare"):
        sweep_of(runs_below(tmp_path / "runs"), "test")


def test_heads_differ_in_the_head_not_in_the_settings_that_it_brings(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "f.h5", arrays=("f_a", "f_v", "cnn_a", "cnn_v"))
    sweep(cache, tmp_path / "run", {"head": ["mlp", "bilstm"]}, epochs=1, merge="concatenate", device="cpu")
    runs = runs_below(tmp_path / "run")
    assert {record.config.head.batch_size for record in runs[0].records} == {128, 64}
    assert sweep_of(runs, "test").values == ("mlp", "bilstm")
    assert swept_settings(runs) == ["head"]
