"""Prepares avel's docstrings for the site: mkdocstrings alone would show doctests and settings as source."""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Class, Docstring, ExprCall, Extension, Object

SESSION = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
FLAG = re.compile(r"  # doctest: .*")


class AvelDocstrings(Extension):
    """Doctests become highlighted code; settings become the parameters of their config, with their help."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Fences the doctests of a docstring, without their flags."""
        if obj.docstring:
            text = FLAG.sub("", obj.docstring.value)
            obj.docstring.value = SESSION.sub(lambda found: f"```pycon\n{found.group()}\n```", text)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Lists every field `option(default, help)` of a config as a parameter, with its help."""
        helps = {name: self._take_help(field) for name, field in cls.attributes.items() if _is_option(field)}
        if helps and cls.docstring:
            lines = "\n".join(f"    {name}: {text}" for name, text in helps.items())
            cls.docstring = Docstring(f"{cls.docstring.value}\n\nArgs:\n{lines}", parent=cls)

    def _take_help(self, field: Attribute) -> str:
        """Replaces the `option(default, help)` of a field by the default, and returns the help."""
        assert isinstance(field.value, ExprCall)
        default, text = field.value.arguments[:2]
        field.value = default
        return str(ast.literal_eval(str(text)))


def _is_option(field: Attribute) -> bool:
    return isinstance(field.value, ExprCall) and str(field.value.function) == "option"
