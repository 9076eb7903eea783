"""Refuses a clip that cannot be staged, for a reason from the manifest's closed list."""

from avel.errors import AvelError
from avel.stores.manifest import Reason


class ClipRefused(AvelError):  # noqa: N818 - recorded as data about a clip, not an error of the program
    """A clip that cannot be staged: `reason` says why, and `detail` what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
