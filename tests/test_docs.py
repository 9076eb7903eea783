"""The docs can't rot: every command stands in them, and every example in the tutorial runs."""

import re
import shlex
from pathlib import Path

import pytest

import avel
from avel.cli import cli
from avel.console import DONE, run
from avel.recipes.composing.compose import compose

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of one language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_documented(name: str) -> None:
    assert any(f"avel {name}" in page.read_text() for page in PAGES)


@pytest.mark.parametrize("name", sorted(set(avel.__all__) - {"__version__"}))
def test_every_public_function_is_in_the_reference(name: str) -> None:
    function = getattr(avel, name)
    line = f"::: {function.__module__}.{function.__qualname__}"
    assert line in (ROOT / "docs" / "api.md").read_text().splitlines()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_outside_the_site_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_links_every_page_of_the_site() -> None:
    readme = PAGES[0].read_text()
    assert [
        page.name for page in PAGES[1:] if f"](docs/{page.name})" not in readme and page.stem != "index"
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_in_the_docs_parses(page: Path) -> None:
    for block in blocks(page, "console"):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "))
            if line.startswith("$ avel ") and len(words) > 1:
                command = cli.commands[words[1]]
                command.make_context(words[1], words[2:], resilient_parsing=False)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose(tmp_path / "demo" / "clips", clips=24)
    page = ROOT / "docs" / "tutorial.md"
    for block in blocks(page, "console"):
        for line in block.splitlines():
            assert run(cli, shlex.split(line.removeprefix("$ avel "))) == DONE, line
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})
