"""Heads of a file: trained by its name, found again by their runs, named where they are not installed."""

import re
import shutil
from pathlib import Path

import pytest

from avel.cli import cli
from avel.config import resolve
from avel.console import DONE, run
from avel.errors import ConfigError, MissingPathError, StoreError
from avel.heads.catalog import describe_head
from avel.heads.config import HEADS, TrainConfig
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.runs import list_runs
from avel.heads.train import sweep, train_head
from avel.heads.training.records import load_head
from avel.stores.documents import write_document
from avel.stores.runs import Run
from tests.heads.synthetic import write_cache

IDEA = '''
"""Adds the two modalities."""
from dataclasses import dataclass
from torch import nn
from avel.config import option
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import Head, HeadOutput


@HEADS.register("idea")
class Idea(Head):
    """Scores of audio plus those of video."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        factor: float = option(1.0, "Factor on the scores of audio.")
        epochs: int = 2

    def __init__(self, widths, config, weak):
        super().__init__(widths, config, weak)
        self.audio = nn.Linear(widths.audio, widths.classes)
        self.visual = nn.Linear(widths.visual, widths.classes)

    def forward(self, audio, visual):
        return HeadOutput(self.config.factor * self.audio(audio) + self.visual(visual), {})
'''


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The heads of this process, so that what a file registers ends with the test."""
    found = {name: HEADS[name] for name in HEADS}
    monkeypatch.setattr(HEADS, "_entries", dict(found))
    return found


@pytest.fixture
def idea(tmp_path: Path, entries: object) -> Path:
    """A file that registers the head "idea"."""
    path = tmp_path / "idea.py"
    path.write_text(IDEA)
    return path


@pytest.fixture
def trained(idea: Path, tmp_path: Path) -> Path:
    """A run of that head."""
    cache = write_cache(tmp_path / "features.h5", samples=30)
    words = ["train-head", cache, tmp_path / "runs" / "idea", "--head", idea, "--set", "factor=0.5"]
    assert run(cli, list(map(str, words))) == DONE
    return tmp_path / "runs" / "idea"


def forget(monkeypatch: pytest.MonkeyPatch, entries: dict[str, object]) -> None:
    """Leaves the heads as another process finds them."""
    monkeypatch.setattr(HEADS, "_entries", dict(entries))


def test_a_head_of_a_file_trains_and_is_found_again(
    trained: Path, idea: Path, entries: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (trained / "head_code" / "idea.py").read_text() == IDEA
    forget(monkeypatch, entries)
    assert load_head(trained).head.config.factor == 0.5  # type: ignore[attr-defined]
    assert describe_head(str(idea)).settings[0].name == "factor"
    assert train_head(trained.parents[1] / "features.h5", trained, head=str(idea), factor=0.5).groups["idea"]


def test_a_run_keeps_two_files_of_one_name(idea: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / idea.name
    other.parent.mkdir()
    other.write_text(IDEA.replace('"idea"', '"other"'))
    cache, folder = write_cache(tmp_path / "features.h5", samples=30), tmp_path / "two"
    sweep(cache, folder, {"head": [str(idea), str(other)]})
    kept = {path.name: path.read_text() for path in (folder / "head_code").iterdir()}
    assert kept == {"idea.py": IDEA, "other.py": other.read_text()}


def test_an_edited_file_is_another_head(
    trained: Path,
    idea: Path,
    entries: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    idea.write_text(IDEA.replace("+ self.visual", "- self.visual"))
    cache = trained.parents[1] / "features.h5"
    with pytest.raises(StoreError, match=r"head_code_digest\.idea was .* is now"):
        train_head(cache, trained, head=str(idea), factor=0.5)
    load_head(trained)  # of the file as this process has read it last
    assert "the code of head 'idea' has changed" in capsys.readouterr().err
    forget(monkeypatch, entries)
    with pytest.raises(
        StoreError, match=r"'idea' came from the file .*idea.py, which has changed since"
    ) as refused:
        load_head(trained)
    assert "head_code/idea.py is the file as it was" in refused.value.hint
    assert evaluate(trained).groups["idea"].accuracy_percent.mean is not None  # figures need no code
    assert list_runs(trained.parent)[0].differs == {}


def test_a_file_that_is_gone_or_of_another_user_is_not_run(
    trained: Path, idea: Path, entries: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch, entries)
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: idea.stat().st_uid + 1)
        with pytest.raises(StoreError, match="which is not yours"):
            load_head(trained)
    idea.rename(other := idea.with_name("other.py"))
    with pytest.raises(StoreError, match="which is not there"):
        load_head(trained)
    idea.symlink_to(other)
    with pytest.raises(StoreError, match="which is a link"):
        load_head(trained)
    assert "idea" not in HEADS


def test_a_head_that_is_not_installed_is_named_with_its_package(
    trained: Path, entries: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, origin = Run.open(trained).record, "gated==1.0, module gated.heads"
    inputs = record.inputs | {"head_code": {"idea": origin}}
    write_document(trained / "run.json", vars(record) | {"inputs": inputs})
    forget(monkeypatch, entries)
    with pytest.raises(StoreError, match=rf"'idea' is not installed; it came from {re.escape(origin)}"):
        load_head(trained)


def test_heads_say_where_they_come_from(idea: Path) -> None:
    assert re.fullmatch(r"avel==[\w.]+, module avel\.heads\.models\.mlp", HEADS.origin("mlp"))
    assert HEADS.origin(HEADS.named(str(idea))) == str(idea)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "idea.py registers no head"),
        (IDEA + IDEA.replace('"idea"', '"idea2"'), "idea.py registers idea and idea2"),
        (IDEA.replace('"idea"', '"mlp"'), "idea.py: there is a head 'mlp' already"),
        ("import no_such_package", "idea.py, line 1: ModuleNotFoundError"),
        ("x = (", "idea.py, line 1: SyntaxError"),
        (IDEA + "\n1 / 0", f"idea.py, line {IDEA.count(chr(10)) + 2}: ZeroDivisionError"),
    ],
)
def test_a_file_that_registers_no_head_is_refused(
    idea: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    idea.write_text(text)
    forget(monkeypatch, {})
    for _ in range(2):
        with pytest.raises(ConfigError, match=re.escape(message)):
            resolve(TrainConfig, "train-head", options={"head": str(idea)})


def test_a_file_that_is_not_there_is_named(entries: object, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"nothing\.py: no such file"):
        resolve(TrainConfig, "train-head", options={"head": str(tmp_path / "nothing.py")})


def test_two_files_of_one_name_are_two_heads(idea: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    other = tmp_path / "more" / "idea.py"
    shutil.copy(idea, other)
    other.write_text(IDEA.replace('"idea"', '"idea2"'))
    assert (HEADS.named(str(idea)), HEADS.named(str(other))) == ("idea", "idea2")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inputs = ('maps')", "Idea: no inputs named 'm'"),
        ("tasks = ('multi_labels',)", r"'multi_labels'\s+next: did you mean multi_label"),
    ],
)
def test_attributes_that_name_nothing_are_refused(idea: Path, line: str, says: str) -> None:
    idea.write_text(IDEA.replace("    @dataclass", f"    {line}\n    own = 3\n\n    @dataclass"))
    with pytest.raises(ConfigError, match=rf"{re.escape(str(idea))}: .*{says}"):
        describe_head(str(idea))


def test_attributes_that_may_be_misspelt_are_noted(idea: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idea.write_text(
        IDEA.replace("    @dataclass", "    buffer = 8\n    differing_lengths = True\n\n    @dataclass")
    )
    assert describe_head(str(idea)).head.name == "idea"
    told = " ".join(capsys.readouterr().err.split())
    assert "Idea: avel does not read the attribute 'buffer'; did you mean 'buffered'?" in told
    assert "attribute 'differing_lengths'; did you mean 'takes_differing_lengths'?" in told


def test_a_property_or_a_name_of_its_own_is_no_misspelt_attribute(
    idea: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "    kept = 3\n\n    @property\n    def input(self) -> int:\n        return 1\n\n    @dataclass"
    idea.write_text(IDEA.replace("    @dataclass", own))
    assert describe_head(str(idea)).head.name == "idea"
    assert "does not read" not in capsys.readouterr().err
