"""Tables of Ran et al. 2022: features, head and accuracy of each row.

Accuracies in % of AVE's test segments, from Tables 2-5 and the text about Figure 6. The paper lacks the rows
without a figure; they are added for comparison.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avel.pipeline.pretraining.presets import PRESETS

CNNS_ALONE, UNTRAINED, AVBT = "backbones", "untrained", "paper"
"""Features of the CNNs alone, of Bi-LSTMs with random weights, and of AV-BT with the given settings."""

ENCODERS: Mapping[str, Mapping[str, Any]] = {
    **PRESETS,
    UNTRAINED: {"epochs": 1, "lr_scale": 0.0, "lr_scale_backbone": 0.0},
}
"""Features -> settings of their pretraining; UNTRAINED keeps the Bi-LSTMs that AV-BT starts from."""

PROBE = {"head": "mlp"}
AUDIO_PROBE, VISUAL_PROBE = (PROBE | {"modality": name, "merge": "add"} for name in ("audio", "visual"))
"""Probes of one modality. They set `merge`, since a user's merge="concatenate" would fail here."""
CONCATENATED = {"head": "mlp", "merge": "concatenate"}


@dataclass(frozen=True)
class PaperRow:
    """One line of a table.

    Attributes:
        name: what the paper calls it.
        paper_percent: the paper's accuracy; None where it has none.
        features: `backbones`, or a name of ENCODERS.
        head: settings of the head.
    """

    name: str
    paper_percent: float | None = None
    features: str = AVBT
    head: Mapping[str, Any] = field(default_factory=lambda: PROBE)


TABLE_2 = (
    PaperRow("supervised Bi-LSTM, audio", 59.5, CNNS_ALONE, {"head": "bilstm", "modality": "audio"}),
    PaperRow("supervised Bi-LSTM, visual", 55.3, CNNS_ALONE, {"head": "bilstm", "modality": "visual"}),
    PaperRow("AVEL", 71.3, CNNS_ALONE, {"head": "avel"}),
    PaperRow("CNN vectors, concatenated", None, CNNS_ALONE, CONCATENATED),
    PaperRow("random Bi-LSTMs, audio + visual", None, UNTRAINED),
    PaperRow("AV-BT, audio", 63.5, head=AUDIO_PROBE),
    PaperRow("AV-BT, visual", 61.0, head=VISUAL_PROBE),
    PaperRow("AV-BT, audio + visual", 75.6),
)

TABLE_3 = (
    PaperRow("CMAN", 73.3, CNNS_ALONE, {"head": "cman"}),
    PaperRow("AVRB (reconstruction)", 74.8, CNNS_ALONE, {"head": "avrb_style"}),
    PaperRow("AVIN", 75.2, CNNS_ALONE, {"head": "avin"}),
    PaperRow("MPN (reconstruction)", 75.2, CNNS_ALONE, {"head": "mpn_style"}),
    PaperRow("JCAN", 76.2, CNNS_ALONE, {"head": "jcan"}),
    PaperRow("PSP, no pair loss", 76.6, CNNS_ALONE, {"head": "psp", "pair_loss": 0.0}),
    PaperRow("AVT (reconstruction)", 76.8, CNNS_ALONE, {"head": "avt_style"}),
    PaperRow("PSP, with its pair loss", None, CNNS_ALONE, {"head": "psp"}),
    PaperRow("AV-BT + MLP", 75.6),
    PaperRow("AV-BT + TACMA", 77.2, head={"head": "tacma"}),
    PaperRow("AV-BT + TACMA, Eq. 6 as printed", None, head={"head": "tacma", "routing": "printed"}),
)

TABLE_4 = (
    PaperRow("AV-BT, audio + visual", 75.6),
    PaperRow("AV-BT, audio", 63.5, head=AUDIO_PROBE),
    PaperRow("AV-BT, visual", 61.0, head=VISUAL_PROBE),
    PaperRow("with AGVA, audio + visual", 71.5, "table4-agva"),
    PaperRow("separate projectors, audio + visual", 72.5, "table4-separate-projectors"),
    PaperRow("separate projectors, audio", 63.0, "table4-separate-projectors", AUDIO_PROBE),
    PaperRow("separate projectors, visual", 60.4, "table4-separate-projectors", VISUAL_PROBE),
)

ACCURACY_5 = (74.0, 74.5, 74.2, 74.3, 74.4, 75.6, 74.3, 74.7, 74.5, 74.4)
TABLE_5 = tuple(
    PaperRow(preset.removeprefix("table5-").replace("-", " "), percent, preset)
    for preset, percent in zip(
        (name for name in PRESETS if name.startswith("table5-")), ACCURACY_5, strict=True
    )
)

FIGURE_6 = tuple(
    PaperRow(f"theta {theta:g}", {0.0: 76.0, 0.03: 77.2}.get(theta), head={"head": "tacma", "theta": theta})
    for theta in (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.1, 0.3)
)

TABLES: Mapping[str, tuple[PaperRow, ...]] = {
    "table2": TABLE_2,
    "table3": TABLE_3,
    "table4": TABLE_4,
    "table5": TABLE_5,
    "figure6": FIGURE_6,
}

TITLES: Mapping[str, str] = {
    "table2": "Table 2: AV-BT's features, evaluated by a three-layer MLP",
    "table3": "Table 3: the whole method beside others",
    "table4": "Table 4: changes to AV-BT's architecture",
    "table5": "Table 5: augmentations",
    "figure6": "Figure 6: theta of TACMA",
}

AGAINST: Mapping[str, str] = {
    "table2": "AV-BT, audio + visual",
    "table3": "AV-BT + TACMA",
    "table4": "AV-BT, audio + visual",
    "table5": "crop blur",
    "figure6": "theta 0.03",
}
"""Table -> the row that all others are compared with, the paper's own method or choice."""
