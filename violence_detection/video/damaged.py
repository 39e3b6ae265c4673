"""Videos that take their process down or keep it for ever, or cannot be read today: what is said of them, and for how
long it is believed.

Videos are decoded in processes of their own (system/processes.py), since nobody knows what is in them. A decoder's own
error comes again whenever the same bytes are read, and is remembered. The rest may have been the fault of the hour (no
memory, a disk that did not answer, a permission), and is tried again by every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from violence_detection.errors import NOT_READ
from violence_detection.system import processes

T = TypeVar("T")
R = TypeVar("R")

#: For one file, at most. Hours of video decode in minutes; what takes longer is damaged, or its disk does not answer.
TIME_LIMIT_S = 30 * 60.0
#: A file of a few seconds gets no more than this, and 20 s a megabyte: hundreds of times what it needs.
_LEAST_S, _S_PER_MB = 120.0, 20.0
CRASHED = "takes the decoder down: the process that read it died"
_TOO_LONG = "takes more than "


def time_limit_s(path: Path) -> float:
    """How long the file may take, by its size."""
    try:
        size_bytes = path.stat().st_size
    except OSError:
        size_bytes = 0
    return min(TIME_LIMIT_S, _LEAST_S + _S_PER_MB * size_bytes / 1e6)


def timed_out(path: Path) -> str:
    """The reason of a file that was given up."""
    return (
        f"{_TOO_LONG}{time_limit_s(path) / 60:.0f} min to read, and was given up; copy it to a faster disk if that is "
        "why, else convert it (ffmpeg -i OLD NEW.mp4) or remove it, and run the same command again"
    )


def cannot_be_read(path: Path, error: OSError) -> str:
    """The reason of a file that the system does not give."""
    if path.is_symlink() and not path.exists():
        return f"{NOT_READ}it is a link to {path.readlink()}, which is not there. Mend or remove the link"
    return f"{NOT_READ}{error.strerror or error}"


def may_pass(reason: str) -> bool:
    """Whether the next run may find the file whole, so that the reason is no fact to be remembered."""
    return reason.startswith((CRASHED, _TOO_LONG, NOT_READ))


def map_files(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    path_of: Callable[[T], Path],
    failed: Callable[[T, str], R],
) -> Iterator[tuple[T, R]]:
    """`processes.map_unordered` for work on files: (item, function(item)), or failed(item, reason) of what ends badly.

    An item whose process died is tried once more, alone: many decoders at once may have wanted more memory than there
    is, and the one that the system then kills need not be to blame. `function` returns no None.
    """
    crashed: list[T] = []

    def timed(
        items: Iterable[T], workers: int, on_crash: Callable[[T], R | None]
    ) -> Iterator[tuple[T, R | None]]:
        return processes.map_unordered(
            function,
            items,
            workers,
            on_crash,
            time_limit_s=lambda item: time_limit_s(path_of(item)),
            on_timeout=lambda item: failed(item, timed_out(path_of(item))),
        )

    for item, result in timed(items, workers, lambda _: None):
        if result is None:
            crashed.append(item)
        else:
            yield item, result
    for item, result in timed(crashed, 1, lambda item: failed(item, CRASHED)):
        assert result is not None
        yield item, result
