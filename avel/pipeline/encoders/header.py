"""What an encoder file is called and what its header must say; imports no torch."""

from collections.abc import Mapping
from pathlib import Path

from avel.errors import StoreError

FORMAT = "2"
LAST, BEST = "encoder.safetensors", "encoder-best.safetensors"
"""Files of a run that hold an encoder: after the last epoch, and after the one with the best score."""


def check_header(path: Path, header: Mapping[str, str]) -> None:
    """Raises StoreError where a file's header is not that of an encoder of this format."""
    if header.get("format") != FORMAT or "encoder" not in header:
        raise StoreError(
            f"{path}: no encoder of format {FORMAT} (its header has {sorted(header)})",
            hint="name a run of this version's avel pretrain",
        )
