"""Every example in a docstring of avel gives what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

import avel

PACKAGE = Path(avel.__file__).parent
MODULES = sorted(
    ".".join(("avel", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_docstrings_give_what_they_say(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert not failed
