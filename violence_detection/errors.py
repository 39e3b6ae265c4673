"""Errors that are meant for people: each says what is wrong, names the file, and gives the remedy."""

from __future__ import annotations

from pathlib import Path

#: How the reason begins of a file that the system does not give: it may be there again tomorrow.
NOT_READ = "cannot be read: "


class UserError(Exception):
    """Something only the user can mend; scripts print it without a traceback and exit with 2."""


class DamagedFile(UserError, ValueError):
    """A text file that is not what it is meant to be; the message names it, and the line."""


class UnreadableVideo(Exception):
    """A video that cannot be decoded; it becomes a named failure, never frames of zeros."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableVideo], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # crosses process boundaries

    def failure(self) -> dict[str, str]:
        """As a failures file and the JSON line name it."""
        return {"path": self.path, "reason": self.reason}


class SourceError(UnreadableVideo):
    """A stream, a camera or a growing file that cannot be opened, or stops without having ended; it may be tried again.

    `path` is its name as shown, without passwords.
    """


class LoginRefused(SourceError):
    """A stream that does not take the user and password. Cameras shut out who tries again too often."""
