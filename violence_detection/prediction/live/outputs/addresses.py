"""Addresses that news go to, checked before anything happens."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import SplitResult

from violence_detection.errors import UserError
from violence_detection.system import redaction


def split(flag: str, url: str, schemes: Collection[str], form: str) -> SplitResult:
    """The parts of an address. Raises UserError for another scheme, and for a host or port that there cannot be.

    `form`: what is right. The error shows no more than the host: the path may be the secret.
    """
    parts = redaction.split(url, shown=redaction.place(url))
    try:
        port = parts.port
        host = (parts.hostname or "").encode("idna")
    except ValueError:  # `my..host`: UnicodeError is one
        raise refused(flag, url, form) from None
    if parts.scheme not in schemes or not host or port == 0:
        raise refused(flag, url, form)
    return parts


def refused(flag: str, url: str, form: str) -> UserError:
    """What to say of an address that cannot be used."""
    return UserError(f"{flag} must be {form}. Received: {redaction.place(url)}")
