"""The config system: one declaration, four sources, errors that name source, key and choices."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from avel.config import ComponentConfig, component, digest, group, option, resolve, settings_of, to_toml
from avel.errors import ConfigError, MissingPathError, UnknownNameError
from avel.registry import Registry


@dataclass(frozen=True)
class Sample:
    epochs: int = option(100, "Epochs.", low=1)
    theta: float = option(0.03, "Decay.", low=0, high=1)
    routing: Literal["cross", "printed"] = option("cross", "Routing.")
    crop_scale: tuple[float, float] = option((0.08, 1.0), "Crop.", low=0, high=1)
    blur: bool = option(True, "Blur.")
    weights: str | None = option(None, "Weights.")
    workers: int = option(2, "Workers.", in_key=False)
    rate: float | None = option(None, "Rate.")
    memory_gb: float | None = option(None, "Memory.", in_key=False)


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[pretrain]\nepochs = 3\ntheta = 0.5\nblur = false\n[extract]\nepochs = 9\n")
    config = resolve(
        Sample,
        "pretrain",
        preset={"epochs": 2, "weights": "w"},
        file=file,
        sets=["theta=0.25", "crop-scale=0.5,1"],
        options={"routing": "printed"},
    )
    assert config == Sample(3, 0.25, "printed", (0.5, 1.0), False, "w", 2)


def test_a_saved_config_reads_back(tmp_path: Path) -> None:
    config = Sample(epochs=7, crop_scale=(0.1, 0.2), blur=False)
    (tmp_path / "c.toml").write_text(to_toml(config, "pretrain"))
    assert resolve(Sample, "pretrain", file=tmp_path / "c.toml") == config


def test_a_file_without_tables_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epochs = 4\n")
    assert resolve(Sample, "pretrain", file=tmp_path / "c.toml").epochs == 4


def test_a_table_of_a_file_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("train-head = 4\n[pretrain]\n")
    with pytest.raises(ConfigError, match=r"c\.toml: train-head is not a table"):
        resolve(Sample, "pretrain", file=tmp_path / "c.toml")


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
        ("crop_scale=1,", ["--set: crop_scale='1,'", "a list of 2"]),
        ("epochs", ["not key=value"]),
    ],
)
def test_bad_values_are_named(item: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(Sample, "pretrain", sets=[item])
    assert all(word in str(error.value) for word in words)
    assert error.value.exit_code == 2


def test_a_whole_number_that_no_float_holds_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"rate = 1{'0' * 400}\n")
    with pytest.raises(ConfigError, match="rate=1000"):
        resolve(Sample, "pretrain", file=tmp_path / "c.toml")


def test_what_changes_no_numbers_may_be_without_limit() -> None:
    assert resolve(Sample, "pretrain", sets=["memory_gb=inf"]).memory_gb == math.inf


def test_an_unknown_table_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train_head]\nepochs = 4\n")
    with pytest.raises(UnknownNameError, match=r"c\.toml: no table named 'train_head'\s+next: .*train-head"):
        resolve(Sample, "pretrain", file=tmp_path / "c.toml")


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean epochs"):
        resolve(Sample, "pretrain", sets=["epoch=3"])


def test_broken_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"no\.toml"):
        resolve(Sample, "pretrain", file=tmp_path / "no.toml")
    latin = "# Caf\u00e9\nepochs = 3".encode("latin1")
    for content in (b"epochs = = 3", latin, b"epochs = " + b"[" * 5000, b"epochs = " + b"9" * 5000):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML.*\s+next: lines are KEY = VALUE"):
            resolve(Sample, "pretrain", file=tmp_path / "bad.toml")


def test_the_digest_holds_what_changes_numbers_and_nothing_else() -> None:
    base = digest(Sample())
    assert digest(Sample(workers=8)) == base
    assert digest(Sample(theta=0.04)) != base
    assert digest(Sample(), input="x") != base


@dataclass(frozen=True)
class Blur:
    sigma: float = option(1.0, "Width.", low=0)
    on: bool = option(True, "Whether.")


COLOURS: Registry[Any] = Registry("colour")


@dataclass(frozen=True)
class ColourConfig(ComponentConfig):
    shade: int = option(3, "Shade.", low=0)


@COLOURS.register("red")
class Red:
    @dataclass(frozen=True)
    class Config(ColourConfig):
        warmth: float = option(0.5, "Warmth.", low=0, high=1)
        shade: int = 7


@COLOURS.register("blue")
class Blue:
    @dataclass(frozen=True)
    class Config(ColourConfig):
        depth: Literal["deep", "pale"] = option("deep", "Depth.")


@dataclass(frozen=True)
class Wall:
    paint: ColourConfig = component(COLOURS, "red", "Its colour.", listed_by="colours NAME")
    coats: int = option(2, "Layers.", low=1)


@dataclass(frozen=True)
class House:
    storeys: int = option(1, "Storeys.", low=1)
    blur: Blur = group(Blur, "Blurring", prefix="blur_")
    wall: Wall = group(Wall, "Walls", prefix="wall_")


def test_groups_and_components_by_name_and_by_place(tmp_path: Path) -> None:
    by_name = ["blur_sigma=2", "wall_paint=blue", "wall_depth=pale", "wall-coats=4"]
    wanted = House(1, Blur(2.0), Wall(Blue.Config(depth="pale"), 4))
    assert resolve(House, "extract", sets=by_name) == wanted
    (tmp_path / "c.toml").write_text(
        "[extract.blur]\nsigma = 2\n[extract.wall]\npaint = 'blue'\ncoats = 4\n"
        "[extract.wall.blue]\ndepth = 'pale'\n[extract.wall.red]\nwarmth = 1\n"
    )
    assert resolve(House, "extract", file=tmp_path / "c.toml") == wanted
    (tmp_path / "d.toml").write_text(to_toml(wanted, "extract"))
    assert resolve(House, "extract", file=tmp_path / "d.toml") == wanted
    paint = {"wall_paint": Blue.Config(depth="pale"), "blur": Blur(2.0), "wall_coats": 4}
    assert resolve(House, "extract", options=paint) == wanted


def test_a_component_brings_its_own_defaults_and_refuses_others_settings() -> None:
    assert resolve(House, "extract").wall.paint == Red.Config(warmth=0.5, shade=7)
    assert resolve(House, "extract", sets=["wall_paint=blue"]).wall.paint == Blue.Config(3, "deep")
    with pytest.raises(
        UnknownNameError, match=r"no setting named 'wall_warmth'\n.*of colour red, not of blue"
    ):
        resolve(House, "extract", sets=["wall_paint=blue", "wall_warmth=1"])
    with pytest.raises(UnknownNameError, match=r"--set: no colour named 'bleu'\s+next: did you mean blue"):
        resolve(House, "extract", sets=["wall_paint=bleu"])
    with pytest.raises(ConfigError, match="wall_warmth='2' must be at most 1"):
        resolve(House, "extract", sets=["wall_warmth=2"])


def test_a_package_that_cannot_be_imported_is_not_asked_for_a_setting() -> None:
    metals: Registry[Any] = Registry("metal", modules={"lead": "no_such_package", "tin": "", "iron": ""})

    @metals.register("tin")
    class Tin:
        @dataclass(frozen=True)
        class Config(ComponentConfig):
            pass

    @metals.register("iron")
    class Iron:
        @dataclass(frozen=True)
        class Config(ComponentConfig):
            rust: int = option(0, "Rust.")

    @dataclass(frozen=True)
    class Roof:
        metal: ComponentConfig = component(metals, "tin", "Its metal.")

    with pytest.raises(UnknownNameError, match="next: rust is a setting of metal iron, not of tin"):
        resolve(Roof, "extract", sets=["rust=3"])


@dataclass(frozen=True)
class Tent:
    poles: int = option(2, "Poles.")
    set_by_option: ClassVar[tuple[tuple[str, ...], str]] = (("fly-sheet",), "--sheet-set")


def test_a_table_that_a_config_does_not_have_is_explained(tmp_path: Path) -> None:
    for table, hint in (
        ("fly-sheet", "settings of fly_sheet are given by --sheet-set width=3"),
        ("pegs", "choose from poles"),
    ):
        (tmp_path / "c.toml").write_text(f"[extract.{table}]\nwidth = 3\n")
        with pytest.raises(UnknownNameError, match=f"no setting named .*width'\n  next: {hint}"):
            resolve(Tent, "extract", file=tmp_path / "c.toml")


@dataclass(frozen=True)
class Room:
    title: str = option("hall", "Its name.")
    lit: bool = option(False, "Whether it has light.")
    paint: ColourConfig | None = component(COLOURS, None, "Its colour, if any.", shown="none")


def test_a_component_without_a_default_stays_open_until_one_is_chosen(tmp_path: Path) -> None:
    assert resolve(Room, "extract", base=Room()) == Room()
    assert [(setting.name, setting.shown) for setting in settings_of(Room)][2:] == [("paint", "none")]
    assert [setting.of(Room()) for setting in settings_of(Room())] == ["hall", False, None]
    assert digest(Room()) != digest(Room(paint=Blue.Config()))
    chosen = resolve(Room, "extract", sets=["paint=blue", "shade=5"])
    assert chosen == Room(paint=Blue.Config(shade=5))
    for number, config in enumerate((Room(), chosen)):
        (tmp_path / f"{number}.toml").write_text(to_toml(config, "extract"))
        assert resolve(Room, "extract", file=tmp_path / f"{number}.toml") == config
    with pytest.raises(UnknownNameError, match="no setting named 'shade'"):
        resolve(Room, "extract", sets=["shade=5"])


def test_the_choice_of_a_component_may_be_written_with_dashes() -> None:
    assert resolve(House, "extract", options={"wall-paint": "blue"}).wall.paint == Blue.Config()


def test_nothing_is_no_text() -> None:
    with pytest.raises(ConfigError, match="option: title=None is not text"):
        resolve(Room, "extract", options={"title": None})


@pytest.mark.parametrize(("text", "value"), [("on", True), ("off", False), ("Yes", True), ("0", False)])
def test_a_switch_is_set_as_help_writes_it(text: str, value: bool) -> None:
    assert resolve(Room, "extract", sets=[f"lit={text}"]).lit is value


def test_an_unknown_name_is_answered_with_names_and_an_unknown_place_with_places() -> None:
    for key, expected in (("wall_coat", "wall_coats"), ("wall.coat", "wall.coats")):
        with pytest.raises(UnknownNameError) as caught:
            resolve(House, "extract", sets=[f"{key}=1"])
        assert expected in caught.value.hint


def test_a_component_changes_the_digest() -> None:
    red, blue = House(), House(wall=Wall(Blue.Config()))
    assert len({digest(red), digest(blue), digest(House(wall=Wall(Red.Config(warmth=0.6))))}) == 3


def test_settings_know_where_they_stand() -> None:
    listed = {setting.name: setting for setting in settings_of(House())}
    assert list(listed) == [
        *("storeys", "blur_sigma", "blur_on", "wall_paint", "wall_shade", "wall_warmth", "wall_coats")
    ]
    assert listed["wall_warmth"].key == "wall.red.warmth"
    assert (listed["wall_shade"].help, listed["wall_shade"].default) == ("Shade.", 7)
    assert listed["wall_paint"].of(House()) == "red"
    shared = [setting for setting in settings_of(House) if setting.name == "wall_shade"]
    assert [each.heading for each in shared] == [
        "Settings of the paint (defaults of red; others: colours NAME)"
    ]
    assert [name for name, each in listed.items() if each.default_varies] == ["wall_shade", "wall_warmth"]


def test_bounds_in_words() -> None:
    @dataclass(frozen=True)
    class Bounded:
        free: int = option(1, "Free.")
        low: float = option(1, "Low.", low=0.5)
        high: int = option(1, "High.", high=4096)
        both: tuple[float, ...] = option((), "Both.", low=0, high=1)

    found = [each.bounds for each in settings_of(Bounded)]
    assert found == ["", "at least 0.5", "at most 4096", "from 0 to 1"]


def test_a_setting_without_help_is_refused() -> None:
    @dataclass(frozen=True)
    class Bare:
        epochs: int = 3

    with pytest.raises(ConfigError, match=r"Bare\.epochs has no help"):
        resolve(Bare, "extract")


def test_two_settings_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Twice:
        sigma: int = option(3, "Sigma.")
        blur: Blur = group(Blur, "Blurring")

    with pytest.raises(ConfigError, match="two settings named sigma"):
        resolve(Twice, "extract")
