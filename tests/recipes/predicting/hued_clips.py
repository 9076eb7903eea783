"""Clips of two classes that a small CNN tells apart, for the tests of predicting."""

from pathlib import Path

from tests.views.made import video


def write_clips(folder: Path, count: int, seconds: int, *, end: int = 2, prefix: str = "") -> Path:
    """Writes `folder`/clips/0.mp4 and so on, red or yellow, a third of them for each split.

    Returns their annotations: one event each, from second 1 to `end`.
    """
    lines = ["video_id,category,start_seconds,end_seconds,split"]
    for number in range(count):
        name, category = f"{prefix}{number}", ("red", "yellow")[number % 2]
        video(folder / "clips" / f"{name}.mp4", seconds, 250 * (number % 2))
        lines.append(f"{name},{category},1,{end},{('train', 'val', 'test')[3 * number // count]}")
    annotations = folder / "events.csv"
    annotations.write_text("\n".join(lines) + "\n")
    return annotations
