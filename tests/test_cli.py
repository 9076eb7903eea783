"""The command line: help with examples, `--json`, stable exit codes, errors that end with the next step."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import avel
from avel.ahead import limit_threads, usable_cores
from avel.cli import cli
from avel.commands.group import in_lines
from avel.console import DONE, ERROR, INTERRUPTED, SOME_FAILED, USAGE, run
from avel.options import SettingOption
from avel.progress import set_verbosity
from avel.values import default_text

COMMANDS = sorted(cli.commands)


def test_the_list_of_commands_says_each_in_a_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["--help"]) == DONE
    for line in capsys.readouterr().out.partition("Commands:")[2].strip().splitlines():
        assert re.search(r"[^.]\.$", line), line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, [name, "--help"]) == DONE
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"avel {name} " in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_an_option_with_help(name: str) -> None:
    command = cli.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"avel {name} {parameter.opts[0]} has no help"


@dataclass(frozen=True)
class Summary:
    staged: int
    failed: int
    reasons: dict[str, int]
    damaged: tuple[str, ...] = ()

    def headline(self) -> str:
        return f"{self.staged} staged"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces avel.extract by a recorder that reports one failed clip when asked for dataset "some"."""
    received: list[Any] = []

    def extract(dataset: Path, store: str, **options: Any) -> Summary:
        if str(dataset) == "stop":
            raise KeyboardInterrupt
        received.append((dataset, store, options))
        failed = int(str(dataset) == "some")
        return Summary(2, failed, {"no-video": failed})

    monkeypatch.setattr(avel, "extract", extract, raising=False)
    return received


def test_results_are_json_on_stdout_and_notes_on_stderr(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["extract", "all", "s.zarr", "--json", "--fps", "8", "--set", "size=64"]) == DONE
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"staged": 2, "failed": 0, "reasons": {"no-video": 0}, "damaged": []}
    printed = tomllib.loads(shown.err)["extract"]
    config = calls[0][2]["config"]
    assert (config.fps, config.size) == (8, 64)
    given = {field.name for field in fields(config) if getattr(config, field.name) is not None}
    assert set(printed) == given


def test_a_setting_of_the_format_without_a_value_is_named(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["extract", "all", "s.zarr", "--format-set", "x"]) == USAGE
    assert "--format-set 'x' is not key=value\n  next: for example --format-set" in capsys.readouterr().err


def test_exit_codes(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["extract", "all", "s.zarr"]) == DONE
    assert run(cli, ["extract", "some", "s.zarr"]) == SOME_FAILED
    assert run(cli, ["extract", "stop", "s.zarr"]) == INTERRUPTED
    assert run(cli, ["extract", "all"]) == USAGE
    assert run(cli, ["extract", "all", "s.zarr", "--fps", "fast"]) == USAGE
    assert run(cli, ["extract", "all", "s.zarr", "--set", "fsp=3"]) == USAGE
    assert run(cli, ["nothing"]) == USAGE
    assert run(cli, ["inspect", "nowhere"]) == ERROR
    assert (DONE, ERROR, USAGE, SOME_FAILED, INTERRUPTED) == (0, 1, 2, 3, 130)


def test_the_end_of_a_file_is_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Click takes an EOFError, such as one of a damaged file, for Ctrl-D at a prompt."""

    def list_runs(*given: Any, **options: Any) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr(avel, "list_runs", list_runs, raising=False)
    with pytest.raises(RuntimeError, match="avel runs: EOFError: Ran out of input"):
        run(cli, ["runs", "nowhere/"])


def test_errors_end_with_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["extract", "d", "s", "--set", "fsp=3"]) == USAGE
    shown = capsys.readouterr().err
    assert "avel: error: --set: no setting named 'fsp'" in shown
    assert "next: did you mean fps" in shown


def test_verbose_says_where_an_error_arose(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["inspect", "nowhere"]) == ERROR
    assert "Traceback" not in capsys.readouterr().err
    try:
        assert run(cli, ["-v", "inspect", "nowhere"]) == ERROR
    finally:
        set_verbosity(1)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "inspection.py" in shown
    assert "avel: error: nowhere: nothing is there" in shown


def test_quiet_prints_results_only(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert run(cli, ["--quiet", "extract", "all", "s.zarr"]) == DONE
    finally:
        run(cli, ["extract", "all", "s.zarr"])
    assert capsys.readouterr().err.startswith("[extract]")  # from the second, louder call alone


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_of_every_command_stand_before_or_after_it(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"before": ["-v", "inspect", "nowhere"], "after": ["inspect", "nowhere", "-v"]}[place]
    try:
        assert run(cli, words) == ERROR
    finally:
        set_verbosity(1)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_h_q_v_and_threads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert run(cli, [name, "-q", "-v", "--threads", "1", "-h"]) == DONE
    finally:
        set_verbosity(1)
        limit_threads(None)
    shown = capsys.readouterr().out
    assert shown.rindex("Every command:") < shown.rindex("--threads N") < shown.rindex("--verbose")


def test_threads_limit_what_the_process_uses() -> None:
    try:
        assert run(cli, ["heads", "mlp", "--json", "--threads", "1"]) == DONE
        assert (usable_cores(), torch.get_num_threads()) == (1, 1)
    finally:
        limit_threads(None)


def test_ids_that_begin_like_an_option_are_ids(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("-hIdOfAClip0", "-vIdOfAClip0", "-qIdOfAClip0"):
        assert run(cli, ["preview", "nowhere.zarr", name, "sheet.png"]) == ERROR
        assert "nowhere.zarr" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_keeps_to_the_width_and_groups_its_options(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(cli, [name, "-h"]) == DONE
    shown = capsys.readouterr().out
    assert not [line for line in shown.splitlines() if len(line) > columns]
    assert not [line for line in shown.splitlines() if "[default: ]" in line]


def test_examples_of_help_are_commands_that_a_shell_joins() -> None:
    example = "avel sweep ave.h5 runs/search --set lr=log:1e-4..1e-2 --set d_e=128,256 --trials 40 --seeds 5"
    shown = in_lines(example)
    assert shown.count("\n") == 1
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(example)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_an_option_is_short(name: str) -> None:
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option) and parameter.help is not None:
            told = parameter.help.partition("  [default")[0]
            assert len(told) <= 135, f"{parameter.opts[0]} {len(told)}: {told}"


def read_help(shown: str) -> dict[str, str]:
    """Flags or name of a setting -> what help says beside them."""
    found: dict[str, str] = {}
    for section in shown.partition("Example:")[0].split("\n\n"):
        for each in re.split(r"\n  (?=\S)", section)[1:] if section.split("\n")[0].endswith(":") else ():
            flags, _, told = each.replace("\n", "  ").partition("  ")
            found[flags] = " ".join(told.split())
    return found


DO_NOTHING_UNLESS_GIVEN = {
    *("--config", "--set", "--preset", "--format-set", "--audio-name", "--visual-name", "--out", "--preview")
}
"""Options without which there is none: no file, no preset, no picture. Any other has its default in words."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_choices_and_the_default_of_every_option(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(cli, [name, "--help"]) == DONE
    found = {
        flags.replace("[no-]", "").split()[0]: told
        for flags, told in read_help(capsys.readouterr().out).items()
    }
    for option in (each for each in cli.commands[name].params if isinstance(each, click.Option)):
        told = found[option.opts[0]]
        if isinstance(option, SettingOption):
            setting = option.setting
            default = re.search(r"\[default: ([^;\]]+)", told)
            assert default is not None, option.opts
            assert default[1] != "None", option.opts
            if not setting.default_varies:
                assert f"[default: {setting.shown or default_text(setting.default)}" in told
            assert told.endswith(f"; {setting.bounds}]" if setting.bounds else "]")
            if setting.registry is not None or typing.get_origin(setting.value_type) is typing.Literal:
                # another test may have registered a component since the options were made
                choices = {*(setting.registry or ()), *typing.get_args(setting.value_type)}
                assert setting.shown or default[1] in choices
        elif option.required:
            assert told.endswith("[required]")
        elif not option.is_flag or option.secondary_opts:
            given = option.default if isinstance(option.default, str | int | float) else ""
            assert f"[default: {'' if option.secondary_opts else given}" in told, option.opts
            if "[default: none]" in told:
                assert option.opts[0] in DO_NOTHING_UNLESS_GIVEN | {"--negatives"}, option.opts


def test_settings_stand_under_headings() -> None:
    shown = cli.commands["train-head"].get_help(click.Context(cli.commands["train-head"]))
    headings = (
        "\nOptions:",
        "\nSettings:",
        "\nSettings of tacma itself,",
        "\nSettings of the head (",
        "--lr N",
    )
    places = [shown.index(each) for each in headings]
    assert places == sorted(places)
    assert "head's own" not in shown[places[2] :], "said once, in the heading"


@pytest.mark.parametrize("command", ["train-head", "sweep"])
@pytest.mark.parametrize(
    ("words", "head", "defaults"),
    [
        ([], "tacma", {"--lr NUMBER": "0.0001; at least 0", "theta NUMBER": "0.03; at least 0"}),
        (
            ["--head", "psp"],
            "psp",
            {
                "--milestones INTEGER,...": "60,120; at least 1",
                "threshold NUMBER": "0.099; from 0 to 1",
                "--[no-]standardise": "off, as the head says",
            },
        ),
        (
            ["--head", "psp", "--supervision", "weak"],
            "psp",
            {"--milestones INTEGER,...": "80,160; at least 1", "threshold NUMBER": "0.095; from 0 to 1"},
        ),
        (["--seeds", "3", "--lr", "3"], "tacma", {"--seeds INTEGER": "1; at least 1"}),
        (["--lr", "3"], "tacma", {"--lr NUMBER": "0.0001; at least 0"}),
    ],
)
def test_help_shows_the_defaults_of_the_head_that_is_chosen_before_it(
    command: str, words: list[str], head: str, defaults: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, [command, *words, "--help"]) == DONE
    shown = capsys.readouterr().out
    assert f"\nSettings of the head (defaults of {head}; others: avel heads NAME):\n" in shown
    assert f"\nSettings of {head} itself, given by --set KEY=VALUE:\n" in shown
    found = read_help(shown)
    for flags, default in defaults.items():
        assert found[flags].endswith(f"[default: {default}]")


def test_help_with_an_unknown_head_names_the_heads(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["train-head", "--head", "tamca", "--help"]) == USAGE
    assert "no head named 'tamca'" in capsys.readouterr().err


def test_help_shows_the_settings_of_a_head_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "idea.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import Literal\n"
        "from avel.config import option\n"
        "from avel.heads.config import HEADS\n"
        "from avel.heads.models.mlp import MLP\n\n"
        "@HEADS.register('of_a_file')\n"
        "class Idea(MLP):\n"
        "    @dataclass(frozen=True)\n"
        "    class Config(MLP.Config):\n"
        "        lr: float = 0.125\n"
        "        bank: int | None = option(None, 'Rows.', low=2)\n"
        "        deep: bool = option(True, 'Whether.')\n"
        "        kind: Literal['a', 'b'] | None = option(None, 'Kind.', shown='as the cache says')\n"
        "        steps: tuple[Literal['a', 'b'], ...] = option(('a',), 'Steps.')\n"
    )
    # In a process of its own, since the head stays registered
    command = [sys.executable, "-m", "avel", "train-head", "--head", str(tmp_path / "idea.py"), "--help"]
    found = read_help(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["--lr NUMBER"].endswith("[default: 0.125; at least 0]")
    assert found["bank INTEGER"] == "Rows. [default: none; at least 2]"
    assert found["deep [on|off]"] == "Whether. [default: on]"
    assert found["kind [a|b]"] == "Kind. [default: as the cache says]"
    assert found["steps VALUE,..."] == "Steps. [default: a]"


def test_the_page_of_the_docs_shows_the_same_defaults() -> None:
    """mkdocs-click writes the options itself, without headings."""
    command = cli.commands["train-head"]
    context = command.context_class(command, parent=click.Context(cli, **cli.context_settings))
    formatter = context.make_formatter()
    click.Command.format_options(command, context, formatter)
    shown = " ".join(formatter.getvalue().split())
    assert "Learning rate of Adam, before it falls. [default: 0.0001; at least 0]" in shown
    assert (
        "--[no-]standardise Shift and scale each feature by its mean and std over train. [default: on,"
        in shown
    )
    assert "TOML file with settings. [default: none]" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_breaks_no_option_between_two_lines(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns in (80, 90, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run(cli, [name, "-h"]) == DONE
        shown = capsys.readouterr().out
        assert not re.search(r"\w-\n", shown)
        assert "\0" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_bounds_of_a_number_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, [name, "-h"]) == DONE
    shown = capsys.readouterr().out
    assert not re.search(r"\bx[<>]|[<>=]x\b", shown)
    expected = {"demo": "from 24 to 1000]", "score": "above 0]", "pack": "at least 1]"}
    assert expected.get(name, "") in " ".join(shown.split())


def test_help_names_the_type_of_the_items_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["train-head", "-h"]) == DONE
    assert "--milestones INTEGER,..." in capsys.readouterr().out
    assert run(cli, ["pretrain", "-h"]) == DONE
    assert "--crop-scale NUMBER,NUMBER" in capsys.readouterr().out


def test_an_interruption_while_modules_are_loaded_is_one_line() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'avel.console':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from avel.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "avel: interrupted\n")
