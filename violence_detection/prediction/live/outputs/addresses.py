"""Checks the addresses that news goes to before anything is started."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import SplitResult

from violence_detection.errors import UserError
from violence_detection.system import redaction


def split(flag: str, url: str, schemes: Collection[str], form: str) -> SplitResult:
    """Split an address. Raises UserError if its scheme is not one of `schemes`, or its host or port is impossible.

    `form`: what the error says an address must be. The error shows only scheme, host and port, since the path may be
    secret.
    """
    parts = redaction.split(url, shown=redaction.place(url))
    try:
        port = parts.port
        host = (parts.hostname or "").encode("idna")
    except ValueError:  # such as `my..host`: UnicodeError is a ValueError
        raise refused(flag, url, form) from None
    if parts.scheme not in schemes or not host or port == 0:
        raise refused(flag, url, form)
    return parts


def refused(flag: str, url: str, form: str) -> UserError:
    """Return the error for an address that cannot be used."""
    return UserError(f"{flag} must be {form}. Received: {redaction.place(url)}")
