"""Errors that are meant for people: each says what is wrong, names the file, and says what to do."""

from __future__ import annotations

from pathlib import Path

#: How the reason begins if the system could not read a file, which may be possible again later.
NOT_READ = "cannot be read: "


class UserError(Exception):
    """Something that only the user can put right; scripts print it without a traceback and exit with code 2."""


class DamagedFile(UserError, ValueError):
    """A text file whose contents are not valid; the message names the file and the line."""


class UnusableRecord(UserError):
    """A file in a run's folder that is damaged or does not belong to the run.

    `fault` says what is wrong, without a full stop and without the remedy: for callers that make the file again.
    """

    def __init__(self, fault: str, remedy: str):
        super().__init__(f"{fault}. {remedy}")
        self.fault, self.remedy = fault, remedy

    def __reduce__(self) -> tuple[type[UnusableRecord], tuple[str, str]]:
        # so that it can be pickled, to pass from one process to another
        return type(self), (self.fault, self.remedy)


class UnreadableVideo(Exception):
    """A video that cannot be decoded; it is reported as a failure with its name, never replaced by black frames."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableVideo], tuple[str, str]]:
        # so that it can be pickled, to pass from one process to another
        return type(self), (self.path, self.reason)

    def failure(self) -> dict[str, str]:
        """The failure as it is written in a failures file and the JSON line."""
        return {"path": self.path, "reason": self.reason}


class SourceError(UnreadableVideo):
    """A stream, camera or growing file that cannot be opened, or stops before its end; it may be tried again.

    `path` is its name as shown, without passwords.
    """


class LoginRefused(SourceError):
    """A stream that rejects the user and password. Cameras lock out clients that try again too often."""
