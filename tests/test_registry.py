"""The registry: a dict and a decorator, with suggestions."""

from dataclasses import dataclass

import pytest

from avel.config import ComponentConfig
from avel.errors import ConfigError, UnknownNameError
from avel.registry import Registry


def test_register_and_find() -> None:
    heads: Registry[type] = Registry("head")
    assert heads.register("tacma")(int) is int
    assert heads["tacma"] is int
    assert list(heads) == ["tacma"]
    assert "tacma" in heads


def test_a_name_taken_twice_is_refused() -> None:
    heads: Registry[type] = Registry("head")
    heads.register("mlp")(int)
    with pytest.raises(ConfigError, match="'mlp' is registered twice"):
        heads.register("mlp")(float)


def test_an_unknown_name_suggests_the_nearest() -> None:
    heads: Registry[type] = Registry("head")
    heads.register("tacma")(int)
    with pytest.raises(UnknownNameError, match=r"no head named 'tacmaa'\s+next: did you mean tacma"):
        heads["tacmaa"]


def test_many_choices_are_not_listed_to_the_last() -> None:
    error = UnknownNameError("video", "?", [f"v{number:04}" for number in range(4097)])
    assert "v0049 and 4047 others" in str(error)
    assert "v0050" not in str(error)


def test_a_config_of_its_own_is_told_the_name() -> None:
    heads: Registry[type] = Registry("head")

    class Base:
        @dataclass(frozen=True)
        class Config(ComponentConfig):
            pass

    class Heir(Base):
        pass

    class Other(Base):
        @dataclass(frozen=True)
        class Config(Base.Config):
            pass

    heads.register("base")(Base)
    with pytest.raises(ConfigError, match="'heir' has no Config of its own, only that of 'base'"):
        heads.register("heir")(Heir)
    heads.register("other")(Other)
    assert (Base.Config().name, Other.Config().name) == ("base", "other")


def test_names_are_listed_before_anything_is_imported() -> None:
    heads: Registry[type] = Registry("head", modules={"lazy": "no.such.module"})
    assert list(heads) == ["lazy"]
    assert "lazy" in heads
    with pytest.raises(ModuleNotFoundError):
        heads["lazy"]
