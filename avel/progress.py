"""Shows progress: a bar on a terminal or in a notebook, otherwise a line on stderr every 30 seconds."""

import html
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from avel.text import duration, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_SECONDS = 30.0
BAR_COLUMNS = 16
FIXED_COLUMNS = BAR_COLUMNS + 22
"""Columns that the bar, a slash, both times and the spaces between them take."""
TICK_SECONDS = 1.0
"""Time between two looks at whether a line is due."""
UPDATE_EVERY_SECONDS = 0.25
"""Time between two updates of a bar in a notebook, each of which is a message to the browser."""

_level = 1


def set_verbosity(level: int) -> None:
    """Sets the verbosity: 0 is quiet (errors only), 1 the default, 2 verbose."""
    global _level
    _level = level


def note(message: str, *, level: int = 1) -> None:
    """Prints a line on stderr if the verbosity is `level` or more."""
    if _level >= level:
        print(printable(message, keep="\n\t"), file=sys.stderr, flush=True)


class Progress:
    """Counts `total` steps called `what` ("clips"); shows rate, failures and time left.

    `of` names the stage or head that takes them. `start` steps were done earlier and do not count in the
    rate.

    >>> with Progress(2, "clips") as progress:
    ...     progress.advance(note="loss 0.1")
    """

    def __init__(self, total: int, what: str, *, of: str = "", start: int = 0) -> None:
        self.total, self.what, self.done, self.failed = total, what, start, 0
        self.name = f"{of}: {what}" if of else what
        self._start = start
        self._note = ""
        self._ended = threading.Event()
        self._began = self._last_line = time.monotonic()
        self._bar = _bar(total, self.name, start) if _level and sys.stderr.isatty() else None
        self._cell: Any = None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        elif _level and (display := _display_of_notebook()):
            self._cell = display(self._bundle(), raw=True, display_id=True)
        else:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()
        elif self._cell:
            self._cell.update(self._bundle(), raw=True)
        elif self.done > self._start:
            note(self.line())

    def advance(self, steps: int = 1, *, failed: int = 0, note: str = "") -> None:
        """Counts `steps` more as done, of which `failed` failed; `note` replaces the note shown."""
        self.done += steps
        self.failed += failed
        self._note = printable(note) or self._note
        if self._bar:
            room = self._bar.console.width - len(self.name) - 2 * len(str(self.total)) - FIXED_COLUMNS
            extra = f"{self._rate()}  {self._extra()}".rstrip()
            if len(extra) > room:  # a longer one would push the time left out of the line
                extra = f"{extra[: room - 3]}..." if room > 3 else ""
            self._bar.update(self._bar.task_ids[0], completed=self.done, extra=extra)
        elif self._cell:
            if time.monotonic() - self._last_line >= UPDATE_EVERY_SECONDS:
                self._last_line = time.monotonic()
                self._cell.update(self._bundle(), raw=True)
        else:
            self._print_if_due()

    def line(self) -> str:
        """Returns the state in one line: done/total, rate, time left or taken, failures, note."""
        seconds, per_second = self._pace()
        if self.done >= self.total:
            pace = f"{self._rate()}  in {seconds:.1f} s"
        elif per_second:
            pace = f"{self._rate()}  {duration((self.total - self.done) / per_second)} left"
        else:
            pace = f"{duration(seconds)} so far"
        return f"{self.name} {self.done}/{self.total}  {pace}  {self._extra()}".rstrip()

    def _bundle(self) -> dict[str, str]:
        """Returns what a cell of a notebook shows, as HTML and as text."""
        line = self.line()
        bar = f'<progress max="{self.total}" value="{self.done}"></progress>'
        return {"text/html": f"{bar} <code>{html.escape(line)}</code>", "text/plain": line}

    def _pace(self) -> tuple[float, float]:
        """Returns the seconds so far and the steps per second."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return seconds, (self.done - self._start) / seconds

    def _rate(self) -> str:
        _, per_second = self._pace()
        if per_second >= 1 or not per_second:
            return f"{per_second:.1f} {self.what}/s"
        return f"{1 / per_second:.1f} s each"

    def _tick(self) -> None:
        """Prints lines while a step takes long, such as a film of minutes."""
        while not self._ended.wait(TICK_SECONDS):
            self._print_if_due()

    def _print_if_due(self) -> None:
        if time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            note(self.line())

    def _extra(self) -> str:
        failures = f"{self.failed} failed" if self.failed else ""
        return "  ".join(part for part in (failures, self._note) if part)


def _display_of_notebook() -> Any:
    """Returns IPython's `display` in a notebook, where a cell's output can be replaced; else None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display  # it is loaded already, since its shell is

    return display


def _bar(total: int, what: str, start: int) -> "Bar":
    """Returns rich's progress bar. rich is imported here, since only a terminal needs it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(what),
        BarColumn(BAR_COLUMNS),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}"),
    )
    bar = Bar(*columns, console=Console(stderr=True), transient=False)
    bar.add_task(what, total=total, completed=start, extra="")
    return bar
