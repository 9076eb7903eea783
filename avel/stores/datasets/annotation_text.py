"""Reads the text of annotation files; an error names the byte that is not UTF-8."""

import re
import shlex
from pathlib import Path

from avel.errors import DatasetError, MissingPathError


def read_text(path: Path) -> str:
    """Returns the text of a UTF-8 file, line ends as they are, without its byte order mark.

    Raises:
        MissingPathError: no such file.
        DatasetError: the file cannot be read, is not UTF-8, or holds a NUL; with byte and line.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such annotation file")
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise DatasetError(
            f"{_place(path, data, error.start)}: not UTF-8: 0x{data[error.start]:02x}",
            hint=_convert(path, "UTF-16" if wide else "LATIN1"),
        ) from None
    if "\0" in text:
        wide = data.count(0) > len(data) // 4
        raise DatasetError(
            f"{_place(path, data, data.index(0))}: a NUL, which is no text",
            hint=_convert(path, "UTF-16BE" if data[0] == 0 else "UTF-16LE") if wide else "take it out",
        )
    return text.removeprefix("\ufeff")


def seconds(text: str) -> float:
    """Parses a time; unlike `float` it refuses `1_000` and non-ASCII digits.

    Raises:
        ValueError: no number.
    """
    try:
        if "_" in text or not text.isascii():
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of seconds") from None


def _place(path: Path, data: bytes, offset: int) -> str:
    line = len(re.findall(rb"\r\n?|\n", data[:offset])) + 1
    return f"{path}: line {line}, byte {offset + 1} of the file"


def _convert(path: Path, encoding: str) -> str:
    wanted = path.with_name(f"{path.stem}-utf8{path.suffix}")
    command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(wanted))}"
    return f"save it as UTF-8; if it is {encoding}: {command}"
