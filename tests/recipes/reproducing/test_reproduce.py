"""`avel reproduce`: rows of the paper, from encoders to an evaluated head, kept and shared by the tables."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avel.cli import cli
from avel.console import DONE, USAGE, run
from avel.errors import ConfigError, DatasetError, MissingPathError, UnknownNameError
from avel.heads.evaluation.paired import Difference
from avel.heads.models.head import Widths, build_model
from avel.heads.tasks.results import Spread
from avel.heads.training.records import read_trial
from avel.recipes.reproducing.measured import Measured, Reproduced, reversed_order
from avel.recipes.reproducing.reproduce import reproduce, row_config
from avel.recipes.reproducing.tables import AGAINST, CNNS_ALONE, ENCODERS, TABLES, TITLES
from avel.stores.clip_writer import write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import make_dataset
from avel.stores.location import locate
from avel.stores.runs import Run
from tests.pipeline.caching.small_stores import write_store
from tests.pipeline.configs import cache_config, changed, pretrain_config

PRETRAINING = pretrain_config(
    visual_backbone="tiny",
    audio_backbone="tiny",
    visual_weights="random",
    audio_weights="random",
    visual_width=16,
    audio_width=16,
    hidden=8,
    projector="16-16-16",
    optimizer="adamw",
    epochs=1,
    batch_size=4,
    crop_size=32,
)
HEADS = {"epochs": 2, "lr": 1e-3, "batch_size": 4}
SETS = [
    *("visual_backbone=tiny", "audio_backbone=tiny", "visual_weights=random", "audio_weights=random"),
    *("visual_width=16", "audio_width=16", "hidden=8", "projector=16-16-16", "epochs=1", "batch_size=4"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("reproduce") / "store.zarr", [f"v{n}" for n in range(12)])


def test_a_store_without_labels_for_test_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.zarr", ["a", "b", "c"])
    dataset = ClipStore.open(path).dataset
    for changes, lacks in (
        ({"split": "val"}, "there is no test sample"),
        ({"events": None}, "no test sample has known events"),
    ):
        samples = [replace(each, **changes) if each.split == "test" else each for each in dataset.samples]
        write_dataset(locate(path), make_dataset("small", "small", samples, tuple(dataset.videos)))
        with pytest.raises(DatasetError, match=f"{lacks}, which table2 needs"):
            reproduce("table2", path, tmp_path / "out", pretraining=PRETRAINING, heads=HEADS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", TABLES)
def test_every_table_names_heads_and_encoders_that_exist(table: str) -> None:
    rows = TABLES[table]
    assert table in TITLES
    assert len({row.name for row in rows}) == len(rows)
    assert AGAINST[table] in {row.name for row in rows}
    for row in rows:
        assert row.features == CNNS_ALONE or row.features in ENCODERS
        row_config(row, {})


def test_table_5_is_the_papers() -> None:
    found = {row.features: row.paper_percent for row in TABLES["table5"]}
    assert found["table5-crop-blur"] == max(found.values()) == 75.6
    assert found["table5-all-gentle-crop"] == 74.0
    assert found["table5-crop-flip-blur"] == 74.7
    assert found["table5-none"] == 74.4
    assert len(found) == 10


def test_rows_of_one_modality_stand_beside_concatenated_ones() -> None:
    for row in TABLES["table4"]:
        config = row_config(row, {"merge": "concatenate"})
        build_model(config, Widths(8, 8, 4), 0)


@pytest.mark.slow
def test_table_2_from_clips_to_figures(store: Path, tmp_path: Path) -> None:
    found = reproduce("table2", store, tmp_path, seeds=2, pretraining=PRETRAINING, heads=HEADS)
    rows = {row.name: row for row in found.rows}
    assert rows["AV-BT, audio + visual"].paper_percent == 75.6
    for row in rows.values():
        assert row.accuracy_percent.mean is not None
        assert 0 <= row.accuracy_percent.mean <= 100
        assert row.validation_percent.mean is not None
        assert row.event_f1_percent.mean is not None
        if row.name == AGAINST["table2"]:
            assert row.differences == {}
        else:
            ours, theirs = row.accuracy_percent.mean, rows[AGAINST["table2"]].accuracy_percent.mean
            assert row.differences["accuracy"].points == pytest.approx(ours - (theirs or 0))
            assert row.differences["accuracy"].seeds == (2, 2)
    assert "AVEL, without AGVA" in rows
    assert any("keep_maps=true" in line for line in found.lines())
    kept = json.loads((tmp_path / "table2.json").read_text())
    assert kept["rows"][0]["name"] == "supervised Bi-LSTM, audio"
    settings = tomllib.loads((tmp_path / "table2.toml").read_text())
    assert settings["pretrain"]["encoder"]["hidden"] == 8
    assert settings["train-head"]["epochs"] == 2
    assert Path(found.picture).read_bytes().startswith(b"\x89PNG")
    assert any("AV-BT, visual" in line and "61.0" in line for line in found.lines())

    made = sorted(path.name for path in (tmp_path / "encoders").iterdir())
    assert made == ["paper-seed0", "paper-seed1", "untrained-seed0", "untrained-seed1"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "encoders").rglob("encoder.safetensors")}
    figure = reproduce("figure6", store, tmp_path, seeds=2, pretraining=PRETRAINING, heads=HEADS)
    assert [row.name for row in figure.rows][:2] == ["theta 0", "theta 0.005"]
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "encoders").rglob("encoder.safetensors")}
    assert after == before, "the tables share their encoders"


@pytest.mark.slow
def test_psp_attends_over_maps_where_they_are_kept(store: Path, tmp_path: Path) -> None:
    maps = cache_config(keep_maps=True)
    found = reproduce("table3", store, tmp_path, seeds=1, pretraining=PRETRAINING, caching=maps, heads=HEADS)
    assert [row.name for row in found.rows if "PSP" in row.name] == [
        "PSP, no pair loss",
        "PSP, with its pair loss",
    ]
    assert not found.notes
    lines = "\n".join(found.lines())
    assert "JCAN" in lines
    assert "resolve about" in lines
    run = Run.open(tmp_path / "table3" / "PSP-with-its-pair-loss-seed0")
    assert read_trial(run, "seed=0").inputs == "maps"


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"theta": 0.1}, "no setting named 'theta'"),
        ({"head": "psp"}, "head='psp' of the heads has no effect"),
        ({"seeds": 7}, "seeds=7 of the heads has no effect"),
    ],
)
def test_settings_of_heads_are_refused_before_encoders_are_trained(
    heads: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        reproduce("table2", tmp_path / "no store", tmp_path / "out", heads=heads)
    assert not (tmp_path / "out").exists()


def test_settings_are_written_with_the_figures_that_they_gave(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no store"):
        reproduce("table2", tmp_path / "no store", tmp_path / "out", pretraining=PRETRAINING, heads=HEADS)
    assert not (tmp_path / "out" / "table2.toml").exists()


@pytest.mark.parametrize("name", ["table2.png", "table2.toml", "table2.json"])
def test_a_file_of_the_users_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name}: was not made by avel"):
        reproduce("table2", tmp_path / "no store", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_random_encoders_are_where_avbt_starts(store: Path, tmp_path: Path) -> None:
    reproduce("table2", store, tmp_path, seeds=1, pretraining=PRETRAINING, heads=HEADS)
    runs = [tmp_path / "encoders" / name for name in ("untrained-seed0", "paper-seed0")]
    starts = [json.loads((run / "run.json").read_text())["inputs"]["encoder"] for run in runs]
    assert starts[0] == starts[1]
    moved = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["moved"] for run in runs]
    assert not any(moved[0].values())
    assert any(moved[1].values())


@pytest.mark.slow
def test_the_command_prints_the_table(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [f"--set=pretrain.{item}" for item in [*SETS, "crop_size=32"]]
    heads = ["--set", "train-head.epochs=1"]
    command = ["reproduce", "table4", str(store), str(tmp_path), "--seeds", "1", *sets, *heads]
    assert run(cli, command) == DONE
    assert "Table 4" in capsys.readouterr().out
    assert run(cli, [*command, "--json"]) == DONE
    again = json.loads(capsys.readouterr().out)
    assert [row["paper_percent"] for row in again["rows"]] == [75.6, 63.5, 61.0, 71.5, 72.5, 63.0, 60.4]


@pytest.mark.slow
def test_agva_keeps_its_maps_beside_the_vectors_of_frozen_cnns(store: Path, tmp_path: Path) -> None:
    frozen = changed(
        PRETRAINING, freeze_backbone=True, frozen_frames=1, frozen_vectors=str(tmp_path / "kept")
    )
    found = reproduce("table4", store, tmp_path / "out", seeds=1, pretraining=frozen, heads=HEADS)
    assert all(row.accuracy_percent.mean is not None for row in found.rows)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "out"}
    assert len([*(tmp_path / "kept").iterdir()]) == 2


def test_table_5_with_frozen_cnns_keeps_the_vectors_of_each_augmentation(store: Path, tmp_path: Path) -> None:
    frozen = changed(PRETRAINING, freeze_backbone=True, frozen_frames=1, frozen_augment=True)
    found = reproduce("table5", store, tmp_path, seeds=1, pretraining=frozen, heads=HEADS)
    assert all(row.accuracy_percent.mean is not None for row in found.rows)
    assert len([*(tmp_path / "frozen-vectors").iterdir()]) == 10
    again = reproduce("table5", store, tmp_path, seeds=1, pretraining=frozen, heads=HEADS)
    assert [row.accuracy_percent for row in again.rows] == [row.accuracy_percent for row in found.rows]


@pytest.mark.parametrize("item", ["lr=0.5", "epochs=3", "pretrain=3", "train.lr=3"])
def test_a_set_without_its_stage_is_refused(
    item: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "table2", str(tmp_path / "s.zarr"), str(tmp_path), "--set", item]
    assert run(cli, command) == USAGE
    refused = f"--set {item} names no stage\n  next: --set STAGE.KEY=VALUE; stages are pretrain, "
    assert refused in capsys.readouterr().err


def test_frozen_cnns_see_no_augmentation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without any"):
        reproduce("table5", tmp_path, tmp_path, pretraining=pretrain_config(freeze_backbone=True))


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean table5"):
        reproduce("table9", tmp_path, tmp_path)


def test_reversed_pairs_are_those_with_figures_on_both_sides() -> None:
    def row(name: str, paper: float | None, here: float | None) -> Measured:
        return Measured(name, paper, Spread(here))

    rows = (row("a", 70.0, 50.0), row("b", 72.0, 49.0), row("c", None, 90.0), row("d", 60.0, None))
    assert reversed_order(rows) == (("a", "b"),)


def test_each_row_says_what_it_takes_to_tell_its_difference() -> None:
    def row(name: str, paper: float | None, **found: Difference) -> Measured:
        return Measured(name, paper, Spread(80.0), event_f1_percent=Spread(55.0), differences=found)

    level = Difference(1.6, -3.0, 6.2, True, 81, (3, 3), 4.6, 670, None)
    apart = Difference(-7.2, -9.8, -4.6, False, 81, (3, 3), 2.6, 20, 2)
    rows = (row("MLP", 75.6, accuracy=level), row("PSP", 76.6, accuracy=apart), row("AV-BT + TACMA", 77.2))
    shown = Reproduced("table3", 3, rows, {}, (), (), 1.0, "p").lines()
    cells = {(parts := re.split("  +", line.rstrip()))[0]: parts[1:] for line in shown}
    assert cells["MLP"] == ["75.6", "80.0", "55.0", "+1.6 [-3.0, 6.2] level", "670 clips"]
    assert cells["PSP"][-1] == "-7.2 [-9.8, -4.6]"
    resolved = "these clips and seeds resolve about 3.6 points"
    assert f"{resolved}; the paper's differences to AV-BT + TACMA are 0.6 to 1.6" in shown
