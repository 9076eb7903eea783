"""Why a clip is not staged: a closed list of reasons, and the exception that carries one of them."""

from typing import Literal, get_args

from avel.errors import AvelError

Reason = Literal[
    "missing",  # there is no such file
    "empty",  # the file holds no bytes
    "unreadable",  # no container, stream or picture in it can be read
    "truncated",  # it ends before one segment of picture has come
    "no-video",  # it holds no moving picture
    "no-audio",  # it holds no sound, and missing_audio is "fail"
    "unsupported",  # this FFmpeg has no decoder for its codec
    "timeout",  # it took longer than the limit of one clip
    "crashed",  # the decoder took its process down
    "memory",  # it wanted more memory than one worker may use
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class ClipRefused(AvelError):  # noqa: N818 - a verdict on a clip, recorded as data, not a fault of the program
    """A clip that cannot be staged; `reason` is one of REASONS, `detail` says what was seen."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ClipRefused"], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)
