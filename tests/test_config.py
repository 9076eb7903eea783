"""The config system: one declaration, four sources, errors that name source, key and choices."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from avel.config import digest, option, resolve, to_toml
from avel.errors import ConfigError, MissingPathError, UnknownNameError


@dataclass(frozen=True)
class Sample:
    epochs: int = option(100, "Epochs.", low=1)
    theta: float = option(0.03, "Decay.", low=0, high=1)
    routing: Literal["cross", "printed"] = option("cross", "Routing.")
    crop_scale: tuple[float, float] = option((0.08, 1.0), "Crop.", low=0, high=1)
    blur: bool = option(True, "Blur.")
    weights: str | None = option(None, "Weights.")
    workers: int = option(2, "Workers.", numeric=False)
    rate: float | None = option(None, "Rate.")
    memory_gb: float | None = option(None, "Memory.", numeric=False)


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[stage]\nepochs = 3\ntheta = 0.5\nblur = false\n[other]\nepochs = 9\n")
    config = resolve(
        Sample,
        "stage",
        preset={"epochs": 2, "weights": "w"},
        file=file,
        sets=["theta=0.25", "crop-scale=0.5,1"],
        options={"routing": "printed"},
    )
    assert config == Sample(3, 0.25, "printed", (0.5, 1.0), False, "w", 2)


def test_a_saved_config_reads_back(tmp_path: Path) -> None:
    config = Sample(epochs=7, crop_scale=(0.1, 0.2), blur=False)
    (tmp_path / "c.toml").write_text(to_toml(config, "stage"))
    assert resolve(Sample, "stage", file=tmp_path / "c.toml") == config


def test_a_file_without_tables_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epochs = 4\n")
    assert resolve(Sample, "stage", file=tmp_path / "c.toml").epochs == 4


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("epochs=abc", ["--set", "epochs", "'abc'", "whole number"]),
        ("epochs=1.5", ["epochs", "whole number"]),
        ("epochs=0", ["epochs", "at least 1"]),
        ("theta=1.5", ["theta", "at most 1"]),
        ("theta=nan", ["theta", "at least 0"]),
        ("rate=inf", ["rate", "'inf'", "finite"]),
        ("crop_scale=0.1,nan", ["crop_scale", "at least 0"]),
        ("routing=both", ["routing", "cross, printed"]),
        ("blur=perhaps", ["blur", "true or false"]),
        ("crop_scale=1", ["crop_scale"]),
        ("epochs", ["not key=value"]),
    ],
)
def test_bad_values_are_named(item: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(Sample, "stage", sets=[item])
    assert all(word in str(error.value) for word in words)
    assert error.value.exit_code == 2


def test_what_changes_no_numbers_may_be_without_limit() -> None:
    assert resolve(Sample, "stage", sets=["memory_gb=inf"]).memory_gb == math.inf


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean epochs"):
        resolve(Sample, "stage", sets=["epoch=3"])


def test_broken_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"no\.toml"):
        resolve(Sample, "stage", file=tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        resolve(Sample, "stage", file=tmp_path / "bad.toml")


def test_the_digest_holds_what_changes_numbers_and_nothing_else() -> None:
    base = digest(Sample())
    assert digest(Sample(workers=8)) == base
    assert digest(Sample(theta=0.04)) != base
    assert digest(Sample(), input="x") != base
