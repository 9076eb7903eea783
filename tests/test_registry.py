"""The registry: a dict and a decorator, with suggestions."""

import os
import pickle
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

import avel.registry
from avel.config import ComponentConfig, option
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


def test_an_unlisted_name_is_found_but_not_offered() -> None:
    heads: Registry[type] = Registry("head", unlisted=("own",))
    heads.register("own")(int)
    heads.register("tacma")(float)
    assert list(heads) == ["tacma"]
    assert "own" in heads
    assert heads["own"] is int


def test_many_choices_are_not_listed_to_the_last() -> None:
    error = UnknownNameError("video", "?", [f"v{number:04}" for number in range(4097)])
    assert "v0004 and 4,092 others" in str(error)
    assert "v0050" not in str(error)


def test_a_config_of_its_own_is_told_the_name() -> None:
    heads: Registry[type] = Registry("head")

    class Base:
        @dataclass(frozen=True)
        class Config(ComponentConfig):
            width: int = option(2, "Width.")

    class Heir(Base):
        pass

    class Other(Base):
        @dataclass(frozen=True)
        class Config(Base.Config):
            pass

    heads.register("base")(Base)
    heads.register("heir")(Heir)
    heads.register("other")(Other)
    assert [each.Config().name for each in (Base, Heir, Other)] == ["base", "heir", "other"]
    assert isinstance(Heir.Config(width=3), Base.Config)
    assert Heir.Config(width=3).explicit == {"width": 3}
    with pytest.raises(ConfigError, match="'again' is registered as 'base' too"):
        heads.register("again")(Base)
    assert ComponentConfig.name == ""


class Plain:
    Config = ComponentConfig


def test_a_config_that_is_derived_can_be_pickled() -> None:
    Registry[type]("backbone").register("plain")(Plain)
    assert pickle.loads(pickle.dumps(Plain.Config())) == Plain.Config()
    assert Plain.Config().name == "plain"
    assert Plain.Config is not ComponentConfig


def test_names_are_listed_before_anything_is_imported() -> None:
    heads: Registry[type] = Registry("head", modules={"lazy": "no.such.module"})
    assert list(heads) == ["lazy"]
    assert "lazy" in heads
    with pytest.raises(ModuleNotFoundError):
        heads["lazy"]


begun, may_end = threading.Event(), threading.Event()
tries: list[str] = []
on_load: Registry[type] = Registry("head", modules={"slow": "avel_test_slow"})


def test_a_second_thread_waits_for_the_first_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "avel_test_slow.py").write_text(
        """
from tests.test_registry import begun, may_end, on_load
begun.set()
assert may_end.wait(60)
on_load.register("slow")(int)
assert "slow" in on_load  # the loading thread itself may ask
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    found: list[object] = []
    asking = threading.Event()

    def ask() -> None:
        asking.set()
        try:
            found.append(on_load["slow"])
        except UnknownNameError as error:
            found.append(error)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(60)
    asking.clear()
    second = threading.Thread(target=ask)
    second.start()
    assert asking.wait(60)
    may_end.set()
    first.join()
    second.join()
    assert found == [int, int]


failing: Registry[type] = Registry("head", modules={"half": "avel_test_failing"})


def test_a_failed_import_is_tried_again_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "avel_test_failing.py").write_text(
        """
from tests.test_registry import failing, tries
@failing.register("half")
class Half: ...
tries.append("once")
if len(tries) < 3:
    raise ImportError("not yet")
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(ImportError, match="not yet"):
            failing["half"]
    assert failing["half"].__name__ == "Half"
    assert len(tries) == 3


def test_a_file_that_was_edited_within_a_second_is_run_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's bytecode knows its source by size and whole second."""
    heads: Registry[type] = Registry("head", files=True)
    monkeypatch.setattr(avel.registry, "heads_of_this_test", heads, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "idea.py"
    code = "from avel.registry import heads_of_this_test as h\n@h.register('idea')\nclass Idea: value = {}\n"
    for value, encoding in ((1, "utf-8"), (2, "utf-8-sig")):
        path.write_text(code.format(value), encoding)
        os.utime(path, (0, 0))
        assert heads[heads.named(str(path))].value == value  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "idea.py").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"idea\.py: not UTF-8: .*0xe9"):
        Registry[type]("head", files=True).named(str(tmp_path / "idea.py"))
