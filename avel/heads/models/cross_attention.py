"""Cross-modal attention without the temporal weighting: TACMA at theta = 0 (Figure 6's first point)."""

from dataclasses import dataclass
from typing import ClassVar

from avel.heads.config import HEADS
from avel.heads.models.head import Published
from avel.heads.models.tacma import TACMA, AttentionConfig


@HEADS.register("cross_attention")
class CrossAttention(TACMA):
    """TACMA whose Eq. 4 weights are all 1."""

    @dataclass(frozen=True)
    class Config(AttentionConfig):
        """TACMA's settings without theta, which is always 0 here."""

        theta: ClassVar[float] = 0.0

    source = "Ran et al. 2022, Figure 6 at theta = 0"
    published = (Published(76.0, "full", "AV-BT", "Ran et al. 2022, Figure 6"),)
    buffered = ()
