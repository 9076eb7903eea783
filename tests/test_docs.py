"""The docs can't rot: every command and function stands in them, links lead somewhere.

tests/test_examples.py runs the examples.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import avel
from avel.cli import cli
from avel.heads.config import HEADS
from avel.heads.models.head import Head
from avel.heads.models.relevance import RelevanceHead
from avel.stores.kinds import VIDEO_SUFFIXES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIST_OF_HEADS = (ROOT / "docs" / "list-of-heads.md").read_text()


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


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_is_in_the_list_of_heads(head: str) -> None:
    assert re.search(rf"^### .*`{head}`", LIST_OF_HEADS, re.MULTILINE)
    assert re.search(rf"^\| \[`{head}`\]\(#", LIST_OF_HEADS, re.MULTILINE)


def table_rows(lines: Iterable[str]) -> list[list[str]]:
    """The cells of a table's lines."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_list_of_heads_gives_the_settings_of_training() -> None:
    page = LIST_OF_HEADS.split("### Training")[1].split("\n### ")[0]
    rows = table_rows(line for line in page.splitlines() if "e-" in line)
    given = {head: row[1:] for row in rows for head in re.findall(r"`(\w+)`", row[0])}
    assert set(given) == set(HEADS)
    for head, (lr, batch, schedule, clip_norm, epochs) in given.items():
        config = HEADS[head].Config()
        assert (float(lr), int(batch), int(epochs)) == (config.lr, config.batch_size, config.epochs), head
        assert float(clip_norm or 0) == config.clip_norm, head
        every = f"by {config.lr_decay:g} every {config.lr_decay_every} epochs"
        after = f"by {config.lr_decay:g} after {', '.join(map(str, config.milestones))}"
        cosine = "by a cosine that falls to 0" if config.cosine else ""
        steps = after if config.milestones else every if config.lr_decay_every else ""
        assert schedule == (steps or cosine), head


def test_the_table_of_weak_supervision_gives_losses_and_labels() -> None:
    page = LIST_OF_HEADS.split("### Weak supervision")[1].split("\nBCE is")[0]
    rows = table_rows(line for line in page.splitlines() if line.startswith("| `"))
    given = {head: row[1:] for row in rows for head in re.findall(r"`(\w+)`", row[0])}
    able = {head for head in HEADS if HEADS[head].weak and HEADS[head].tasks != ("multi_label",)}
    for head in able:
        if head not in given:
            assert HEADS[head].weak_loss is Head.weak_loss, f"{head} has a loss of its own"
            continue
        pooling, _, labels = given.pop(head)
        assert labels == HEADS[head].weak_labels[0], head
        assert HEADS[head].weak_loss is not Head.weak_loss, f"{head} has the usual loss"
        of_relevance = issubclass(HEADS[head], RelevanceHead) and head not in ("cmbs", "lesp", "vscg")
        assert pooling.startswith("relevance times category") == of_relevance, head
    assert not given, "heads that cannot learn from video labels"


def test_the_endings_of_videos_are_those_looked_for() -> None:
    page = (ROOT / "docs" / "formats-read.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| file name endings"))
    assert set(re.findall(r"\.[a-z0-9]+", line)) == VIDEO_SUFFIXES
