"""A place that cannot be written is said in one line before the work, whatever the command."""

from pathlib import Path

import pytest

from avel.cli import cli
from avel.console import ERROR, run
from avel.errors import WriteError
from avel.stores.files import check_can_write

COMMANDS = {
    "import-features": ["import-features", "none", "OUT/c.h5"],
    "cache-features": ["cache-features", "none", "OUT/c.h5"],
    "export-features": ["export-features", "none", "OUT/folder"],
    "train-head": ["train-head", "none", "OUT/run"],
    "sweep": ["sweep", "none", "OUT/run", "--set", "lr=0.1,0.2"],
    "report": ["report", "none", "--out", "OUT/page"],
    "plot": ["plot", "none", "confusion", "--out", "OUT/a.png"],
    "preview": ["preview", "none", "a", "OUT/a.png"],
    "predict --out": ["predict", "none", "a.mp4", "--out", "OUT/a.csv"],
    "predict --preview": ["predict", "none", "a.mp4", "--preview", "OUT/a.png"],
    "reproduce": ["reproduce", "table2", "none", "OUT/folder"],
    "demo": ["demo", "OUT/folder"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_cannot_be_written_is_said_before_the_inputs_are_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = [word.replace("OUT", str(tmp_path / "file")) for word in COMMANDS[name]]
    assert run(cli, words) == ERROR
    *_, error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"avel: error: {tmp_path / 'file'}")
    assert error.endswith(("Not a directory", "File exists"))
    assert hint.startswith("  next: choose another place")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="Is a directory"):
        check_can_write(tmp_path)
    with pytest.raises(WriteError, match="Not a directory"):
        check_can_write(tmp_path / "file", folder=True)
    with pytest.raises(WriteError, match="File name too long"):
        check_can_write(tmp_path / ("a" * 300) / "b")


def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    check_can_write(tmp_path / "a" / "b.h5")
    check_can_write(tmp_path / "a" / "b", folder=True)
    check_can_write(tmp_path, folder=True)
    assert list(tmp_path.iterdir()) == []
