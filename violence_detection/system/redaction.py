"""Removes credentials from addresses and other texts, so that they can be shown and logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from violence_detection.errors import UserError

#: User and password before a host. A password may contain characters that are invalid there; `host:80/x@y` has none.
_LOGIN = (
    re.compile(r"(\w+:/+)[^\s/'\"<>]*@"),
    re.compile(r"(\w+:/+)[^\s/@:'\"<>]+:(?!\d+(?:[/\s]|$))[^'\"<>@\n]*@"),
)
#: Secrets by name, in queries and in paths, as some cameras have them: /user=admin_password=..._channel=1.sdp. The
#: value may contain an unencoded #.
_SECRET_VALUE = re.compile(
    r"(?i)([?&#/;_~][\w.-]*(?:token|key|sig|secret|pas|pw|psw|auth|login|credential|jwt|hmac|psk)[\w.-]*=)"
    r"[^&\s'\"<>)]+"
)
#: Short parameter names of cameras: ?u=admin&p=...
_SHORT_VALUE = re.compile(r"(?i)([?&](?:u|usr|user|username)=[^\s'\"<>]*?&p=)[^&\s'\"<>)]+")
_SESSION = re.compile(r"(?i)([?&](?:_?sid|session(?:_?id)?)=)[^&\s'\"<>)]+")
#: SRT puts the login into the stream id: ?streamid=read:front:admin:... and ?streamid=#!::r=front,u=admin,s=...
_STREAM_ID = re.compile(r"(?i)([?&]streamid=(?:(?:(?!%3A)[^:&\s'\"<>])*(?::|%3A)){2})[^&\s'\"<>]+")
#: A login as a part of the path: /0/admin:.../main
_LOGIN_IN_PATH = re.compile(r"(\w+://[^\s/'\"<>]+/(?:[^\s/:?#'\"<>]+/)*)[^\s/:?#'\"<>]+:[^\s/?#'\"<>]+")
#: A character that ends an address within a text.
END = re.compile(r"[\s'\"<>)]")

#: Logins at the beginning of a mistyped address: `rtsp//me:pw@host`, `me:pw@host`, also after `NAME=`.
_MISTYPED_LOGIN = (
    re.compile(r"^((?:[A-Za-z0-9][\w-]*=)?\w*(?:\W{0,3}//+|:/))[^/]*@", re.DOTALL),
    re.compile(
        r"^((?:[A-Za-z0-9][\w-]*=)?(?:\w*(?:\W{0,3}//+|:/))?)[^/@:]*:(?!\d+(?:[/\s]|$)).*@", re.DOTALL
    ),
)


def safe_url(url: str) -> str:
    """The address without user, password, query and fragment, which may contain credentials or signatures.

    A password that contains / or #, or that is part of the path, is removed too.
    """
    url = alone(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # not a valid address
        return redact(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def split(url: str, shown: str = "") -> SplitResult:
    """Split an address from the user into its parts.

    `shown`: the address as the error message shows it; by default, without its login. Raises UserError if the address
    cannot be parsed or its port is not from 1 to 65535.
    """
    parts: SplitResult | None = None
    try:
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    except ValueError:
        pass
    # Raised outside the handler: urlsplit's error may contain the password and would be chained.
    if parts is not None and "@" not in parts.path + parts.query + parts.fragment:
        raise UserError(
            f"the port of {shown or redact(_quoted(url))} is invalid: ports are numbers from 1 to 65535"
        )
    scheme, _, behind = alone(url).partition("://")
    shown = shown or redact(f"{scheme}://{behind.rpartition('@')[2]}")
    raise UserError(
        f"the address {shown} cannot be read. In a user name or password, characters such as [ ] / ? # @ must be "
        "percent-encoded: %5B %5D %2F %3F %23 %40. Elsewhere, [ and ] may only enclose an IPv6 address"
    )


def without_secrets(text: str) -> str:
    """The text without logins, tokens, keys and signatures in the addresses that it contains."""
    for login in _LOGIN:
        text = login.sub(r"\1", text)
    for secret in (_SECRET_VALUE, _SHORT_VALUE, _SESSION, _STREAM_ID, _LOGIN_IN_PATH):
        text = secret.sub(r"\1...", text)
    return text


def alone(address: str) -> str:
    """`without_secrets` for a text that is a single address: spaces, quotes and the like count as part of it.

    They are percent-encoded. A text without `://`, such as a path, is taken as it is.
    """
    return without_secrets(_quoted(address) if "://" in address else address)


def _quoted(address: str) -> str:
    return END.sub(lambda found: quote(found[0]), address)


def has_login(text: str) -> bool:
    """Whether the text begins like an address with a login, even a mistyped one."""
    return any(login.search(text) for login in _MISTYPED_LOGIN)


def mistyped(text: str) -> str:
    """Input that is neither a file nor an address, for an error message: without anything that may be a login."""
    text = alone(text)  # first, because a password after the path may contain an @
    for login in _MISTYPED_LOGIN:
        text = login.sub(r"\1", text)
    return without_secrets(text)


def place(url: str) -> str:
    """Only scheme, host and port of a given address, because its path may be secret too."""
    found = re.match(r"\w*:?/{0,2}[^\s/?#]*", mistyped(url))
    return found[0] if found else ""


def places_in(text: str) -> str:
    """The text with every address in it reduced to scheme, host and port."""
    return re.sub(r"(\w+://[^\s/?#'\"<>]*)[/?#][^\s'\"<>]*", r"\1/...", without_secrets(text))


def without_secrets_in(value: Any) -> Any:
    """Apply `without_secrets` to all strings with `://` in nested mappings, lists and tuples; others are unchanged."""
    if isinstance(value, str):
        return without_secrets(value) if "://" in value else value
    if isinstance(value, Mapping):
        return {k: without_secrets_in(v) for k, v in value.items()}
    return [without_secrets_in(v) for v in value] if isinstance(value, list | tuple) else value


def redact(text: str) -> str:
    """The text of a network error or answer without queries, passwords and tokens."""
    text = without_secrets(re.sub(r"\?[^\s'\"<>)]+", "?...", text))
    return re.sub(r"(?i)\b(bearer|basic)\s+[\w.+/=~-]+", r"\1 ...", text)
