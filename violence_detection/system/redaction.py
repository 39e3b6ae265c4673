"""Addresses and texts without the credentials they may carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from violence_detection.errors import UserError

#: User and password before a host; a password may hold what an address must not. `host:80/x@y` is none.
_LOGIN = (
    re.compile(r"(\w+:/+)[^\s/'\"<>]*@"),
    re.compile(r"(\w+:/+)[^\s/@:'\"<>]+:(?!\d+(?:[/\s]|$))[^'\"<>@\n]*@"),
)
#: Also in paths, where cameras have it: /user=admin_password=..._channel=1.sdp. A value may hold a # not encoded.
_SECRET_VALUE = re.compile(
    r"(?i)([?&#/;_~][\w.-]*(?:token|key|sig|secret|pas|pw|psw|auth|login|credential|jwt|hmac|psk)[\w.-]*=)"
    r"[^&\s'\"<>)]+"
)
#: What cameras have besides: ?u=admin&p=... and /0/admin:.../main
_SHORT_VALUE = re.compile(r"(?i)([?&](?:u|usr|user|username)=[^\s'\"<>]*?&p=)[^&\s'\"<>)]+")
_SESSION = re.compile(r"(?i)([?&](?:_?sid|session(?:_?id)?)=)[^&\s'\"<>)]+")
#: SRT has a login in the name of the stream: ?streamid=read:front:admin:... and ?streamid=#!::r=front,u=admin,s=...
_STREAM_ID = re.compile(r"(?i)([?&]streamid=(?:(?:(?!%3A)[^:&\s'\"<>])*(?::|%3A)){2})[^&\s'\"<>]+")
_LOGIN_IN_PATH = re.compile(r"(\w+://[^\s/'\"<>]+/(?:[^\s/:?#'\"<>]+/)*)[^\s/:?#'\"<>]+:[^\s/?#'\"<>]+")
#: What ends an address in a text.
END = re.compile(r"[\s'\"<>)]")

#: The same in what somebody meant to be an address: with a name before it, `rtsp//me:pw@host`, `me:pw@host`.
_MISTYPED_LOGIN = (
    re.compile(r"^((?:[A-Za-z0-9][\w-]*=)?\w*(?:\W{0,3}//+|:/))[^/]*@", re.DOTALL),
    re.compile(
        r"^((?:[A-Za-z0-9][\w-]*=)?(?:\w*(?:\W{0,3}//+|:/))?)[^/@:]*:(?!\d+(?:[/\s]|$)).*@", re.DOTALL
    ),
)


def safe_url(url: str) -> str:
    """The address without user, password, query and fragment, which may hold credentials or signatures.

    A password that holds / or #, or stands in the path, is taken out too.
    """
    url = alone(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all
        return redact(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def split(url: str, shown: str = "") -> SplitResult:
    """The parts of an address that somebody gave.

    `shown`: how the error shows it; else without its login. Raises UserError where they cannot be told, and for a port
    that there cannot be.
    """
    parts: SplitResult | None = None
    try:
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    except ValueError:
        pass
    # outside of the handler: the error of the split may hold the password
    if parts is not None and "@" not in parts.path + parts.query + parts.fragment:
        raise UserError(
            f"the port of {shown or redact(_in_one(url))} is impossible: ports are numbers from 1 to 65535"
        )
    scheme, _, behind = alone(url).partition("://")
    shown = shown or redact(f"{scheme}://{behind.rpartition('@')[2]}")
    raise UserError(
        f"the address {shown} cannot be read. In a user name or password, characters such as [ ] / ? # @ must be "
        "percent-encoded: %5B %5D %2F %3F %23 %40. Elsewhere [ and ] stand around an IPv6 address alone"
    )


def without_secrets(text: str) -> str:
    """Any text without what gives access in the addresses it holds: logins, tokens, keys and signatures."""
    for login in _LOGIN:
        text = login.sub(r"\1", text)
    for secret in (_SECRET_VALUE, _SHORT_VALUE, _SESSION, _STREAM_ID, _LOGIN_IN_PATH):
        text = secret.sub(r"\1...", text)
    return text


def alone(address: str) -> str:
    """An address that stands by itself, as `without_secrets`: what would end it in a text is percent-encoded.

    What is no address, such as a path, stays as it is.
    """
    return without_secrets(_in_one(address) if "://" in address else address)


def _in_one(address: str) -> str:
    return END.sub(lambda found: quote(found[0]), address)


def has_login(text: str) -> bool:
    """Whether it begins as what somebody meant to be an address with a login."""
    return any(login.search(text) for login in _MISTYPED_LOGIN)


def mistyped(text: str) -> str:
    """What somebody gave that is neither file nor address, to be shown: without what may have been meant as a login."""
    text = alone(text)  # before: a password behind the path may hold an @
    for login in _MISTYPED_LOGIN:
        text = login.sub(r"\1", text)
    return without_secrets(text)


def place(url: str) -> str:
    """Scheme, host and port of what was given as an address, for where the path may be the secret, too."""
    found = re.match(r"\w*:?/{0,2}[^\s/?#]*", mistyped(url))
    return found[0] if found else ""


def places_in(text: str) -> str:
    """Any text with no more than scheme, host and port of the addresses it holds."""
    return re.sub(r"(\w+://[^\s/?#'\"<>]*)[/?#][^\s'\"<>]*", r"\1/...", without_secrets(text))


def without_secrets_in(value: Any) -> Any:
    """A summary or a row without what gives access in the addresses it holds; other texts, file names say, stay."""
    if isinstance(value, str):
        return without_secrets(value) if "://" in value else value
    if isinstance(value, Mapping):
        return {k: without_secrets_in(v) for k, v in value.items()}
    return [without_secrets_in(v) for v in value] if isinstance(value, list | tuple) else value


def redact(text: str) -> str:
    """Text of a network's exception or answer: without queries, passwords and tokens."""
    text = without_secrets(re.sub(r"\?[^\s'\"<>)]+", "?...", text))
    return re.sub(r"(?i)\b(bearer|basic)\s+[\w.+/=~-]+", r"\1 ...", text)
