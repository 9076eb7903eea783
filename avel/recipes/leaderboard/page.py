"""Writes the leaderboard as one HTML page: no script, no network, every name escaped."""

from html import escape
from pathlib import Path

from avel.heads.evaluation.paired import Difference
from avel.heads.tasks.results import interval_text
from avel.recipes.leaderboard.board import HeadLine, Leaderboard, short
from avel.text import plural

CSS = """
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1b1b1b; --muted: #5f6368; --rule: #d9dce0; --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e8eaed; --muted: #a3a9b0; --rule: #363b41; --mark: #3d9fe0; }
}
body { max-width: 90rem; margin: 1.5rem auto; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.5rem; }
p, li, small { color: var(--muted); overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; color: var(--muted); }
td:has(svg) { padding-right: 0; }
th:first-child { min-width: 9rem; text-align: left; position: sticky; left: 0; background: var(--paper); }
small { display: block; max-width: 14rem; font-weight: normal; white-space: normal; }
td small { width: 11rem; margin-left: auto; }
.against, .against th { background: color-mix(in srgb, var(--mark) 10%, var(--paper)); }
svg { vertical-align: middle; }
line { stroke: var(--ink); } .zero { stroke: var(--muted); stroke-dasharray: 3 2; }
@media (max-width: 50rem) {  /* a row becomes a card, a cell a line with its name */
  table, tbody, tr, th, td { display: block; }
  thead { position: absolute; clip-path: inset(50%); white-space: nowrap; }
  tr { margin-bottom: 1rem; border: 1px solid var(--rule); border-radius: .4rem; }
  th, td { white-space: normal; }
  tbody th { font-size: 1rem; }
  tbody td { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
  tbody td::before { content: attr(data-name); color: var(--muted); text-align: left; }
  tbody td:empty { display: none; }
  tbody td[data-name=""] { justify-content: end; }
  small, td small { width: auto; max-width: none; margin: 0; flex-basis: 100%; }
}
circle { fill: var(--mark); } .level circle { fill: var(--paper); stroke: var(--muted); stroke-width: 2; }
"""
WIDTH_PIXELS = 160
"""Width of the drawn intervals in pixels."""


def page(board: Leaderboard) -> str:
    """Returns the HTML of the page."""
    about = (
        f"{plural(board.samples, 'test clip')} of {escape(Path(board.cache).name)}"
        f" ({escape(board.cache_digest)}), {board.supervision} supervision; epochs chosen on validation."
        " Percent; mean ± standard deviation over seeds."
    )
    baselines = "; ".join(
        f"{escape(name)} {value:.1f}" for name, value in board.trivial_baselines_percent.items()
    )
    compared = [line.difference for line in board.heads if line.difference is not None]
    widest = max((max(abs(each.low_points), abs(each.high_points)) for each in compared), default=1.0)
    columns = _columns(board)
    header = "".join(
        f'<th scope="col"{" colspan=2" * (columns[place : place + 1] == [""])}>{escape(column)}</th>'
        for place, column in enumerate(columns, 1)
        if column
    )
    rows = "\n".join(_row(line, columns, board.against, max(widest, 1.0)) for line in board.heads)
    notes = "\n".join(f"<li>{escape(text)}</li>" for text in (*board.notes(), *EXPLAINED))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>avel leaderboard</title>
<style>{CSS}</style>
</head>
<body>
<h1>avel leaderboard</h1>
<p>{about}<br>Trivial baselines: {baselines or "none"}.</p>
<div class="scroll"><table>
<thead><tr>{header}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<ul>
{notes}
</ul>
</body>
</html>
"""


EXPLAINED = (
    "Differences are paired, clip by clip; their intervals are a bootstrap over videos and seeds. A hollow"
    " mark is level: the interval holds 0, so these clips and seeds cannot tell the heads apart.",
    "Many heads on one test split: of twenty that are really equal, about one is not level, by chance.",
    "* what choosing the epoch on the test split would have claimed",
)


def _columns(board: Leaderboard) -> list[str]:
    """Returns the names of the columns; "" for a column under the name of the one before it."""
    percent = "95\N{NO-BREAK SPACE}%"
    return [
        *("head", f"test {board.measure}", f"{percent} interval over videos"),
        *(f"{board.measure} - {board.against}, {percent}", ""),
        *("event F1", f"event F1 - {board.against}, {percent}", "segment F1", "clips with background"),
        *("validation", "best test epoch *", "reported on AVE", "parameters", "seconds an epoch"),
        *("reads", "seeds"),
    ]


def _row(line: HeadLine, columns: list[str], against: str, widest: float) -> str:
    reported = "-"
    if line.published is not None:
        told = escape(f"{line.published.features}; {line.published.source}")
        reported = f"{line.published}<small>{told}</small>"  # as text: print and phones show no tooltip
    difference = line.difference
    cells = (
        str(line.score_percent) or "-",
        interval_text(line.interval_percent) or "-",
        "" if difference is None else _drawn(difference, widest),
        "all are compared with it" if difference is None else escape(str(difference)),
        str(line.event_f1_percent) or "-",
        escape(str(line.differences.get("event_f1", ""))),
        str(line.segment_f1_percent) or "-",
        str(line.holding_background_percent) or "-",
        str(line.validation_percent) or "-",
        str(line.best_test_epoch_percent) or "-",
        reported,
        short(line.parameters),
        "-" if line.epoch_seconds is None else f"{line.epoch_seconds:.2f}",
        escape(line.inputs),
        str(len(line.seeds)),
    )
    name = f'<th scope="row">{escape(line.head)}<small>{escape(line.source)}</small></th>'
    marked = ' class="against"' if line.head == against else ""
    named = zip(columns[1:], cells, strict=True)
    filled = "".join(f'<td data-name="{escape(column)}">{cell}</td>' for column, cell in named)
    return f"<tr{marked}>{name}{filled}</tr>"


def _drawn(found: Difference, widest: float) -> str:
    """Draws the interval on an axis from -widest to widest, 0 in the middle."""
    low, middle, high = (
        WIDTH_PIXELS / 2 * (1 + 0.95 * points / widest)
        for points in (found.low_points, found.points, found.high_points)
    )
    level = ' class="level"' if found.level else ""
    return (
        f'<svg width="{WIDTH_PIXELS}" height="18" role="img" aria-label="{escape(str(found))}"{level}>'
        f'<line class="zero" x1="{WIDTH_PIXELS / 2}" x2="{WIDTH_PIXELS / 2}" y1="0" y2="18"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="9" y2="9"/><circle cx="{middle:.1f}" cy="9" r="4"/></svg>'
    )
