"""Cross-modal attention without the temporal weighting: TACMA at theta = 0 (Figure 6's first point)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from avel.heads.models.head import HEADS
from avel.heads.models.tacma import TACMA


@HEADS.register("cross_attention")
class CrossAttention(TACMA):
    """TACMA whose Eq. 4 weights are all 1."""

    defaults: ClassVar[Mapping[str, Any]] = {
        name: value for name, value in TACMA.defaults.items() if name != "theta"
    }
    buffered = ()
