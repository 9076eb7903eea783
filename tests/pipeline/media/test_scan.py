"""The scan of a file holds no more of its packets in memory than it may, and notices when there is none."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from avel.grid import Grid
from avel.pipeline.media import scan as scan_module
from avel.pipeline.media.container import open_container
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.media.scan import ScannedStream, packets, scan
from tests.media import Film, compose, steady


def test_many_small_packets_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Film(steady(25), 16, 16, clicks=(), sound_codec="aac", tick=Fraction(1, 25))
    path = compose(tmp_path / "quiet.mp4", film)
    monkeypatch.setattr(scan_module, "MOST_PACKET_BYTES", 300_000)
    with open_container(path) as container:
        streams = [ScannedStream(stream) for stream in container.streams]
        assert scan(container, streams, 10.0, lambda: None) == ""
        assert path.stat().st_size < 100_000
        assert [stream.packets for stream in streams] == [None, None]
        assert [sum(1 for _ in packets(path, stream)) for stream in streams] == [260, 449]


def test_too_little_memory_refuses_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not look like damage of the file, which would be staged with what was read before."""
    path = compose(tmp_path / "clip.mp4", Film(steady(25), 16, 16, clicks=(), sound_codec="aac"))

    def add(*_: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr(ScannedStream, "add", add)
    with pytest.raises(ClipRefused) as refusal, open_media(path, Grid()):
        pass
    assert (refusal.value.reason, refusal.value.detail) == ("memory", "Cannot allocate memory")
