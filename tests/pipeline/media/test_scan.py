"""The scan of a file's packets holds no more of them in memory than it may."""

from fractions import Fraction
from pathlib import Path

import pytest

from avel.pipeline.media import scan as scan_module
from avel.pipeline.media.container import open_container
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
