"""Installs what a page of the docs shows, in a package of its own."""

import re
from pathlib import Path


def block(page: str, language: str) -> str:
    """The first code block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def install(page: str, name: str, group: str, folder: Path) -> Path:
    """A folder for PYTHONPATH that holds the page's code as the package `name`, and its entry point."""
    described = folder / "site" / f"{name}-1.0.dist-info"
    described.mkdir(parents=True)
    (folder / "site" / f"{name}.py").write_text(block(page, "python"))
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    section, line = block(page, "toml").splitlines()
    assert section == f'[project.entry-points."{group}"]'
    (described / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    return folder / "site"
