"""Addresses and texts without the credentials they may carry."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def safe_url(url: str) -> str:
    """The address without user, password, query and fragment, which may hold credentials or signatures."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redact(text: str) -> str:
    """Text of an exception or an answer without queries, passwords and tokens."""
    text = re.sub(r"\?[^\s'\"<>)]+", "?...", text)
    text = re.sub(r"(\w+://)[^\s/@]+@", r"\1", text)
    return re.sub(r"(?i)\b(bearer|basic)\s+[\w.+/=~-]+", r"\1 ...", text)
