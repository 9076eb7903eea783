"""Lists the reasons why a clip is not staged, and raises them: a closed list, and its exception."""

from typing import Literal, get_args

from avel.errors import AvelError

Reason = Literal[
    "missing",  # there is no such file
    "empty",  # the file holds no bytes
    "unreadable",  # no container, stream or picture in the file can be read
    "truncated",  # it has less than one segment of video
    "no-video",  # it has no video, or none on the grid
    "no-audio",  # it has no audio on the grid, and missing_audio is "fail"
    "unsupported",  # this FFmpeg has no decoder for its codec
    "timeout",  # decoding took longer than the limit for one clip
    "crashed",  # decoding it ended the decoding process
    "memory",  # decoding it takes more memory than a process may use
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class ClipRefused(AvelError):  # noqa: N818 - recorded as data about a clip, not an error of the program
    """A clip that cannot be staged: one of REASONS, and what was found in `detail`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ClipRefused"], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)
