"""Fetch one large file over HTTP(S), and continue it after an interruption without losing what has arrived.

Bytes go to `<name>.part`. `<name>.part.json` beside it records which version of the published file they belong to:
entity tag, date, length. A part is continued only if the server proves that it still serves the same version (Range
with If-Range; the response's Content-Range and ETag are compared); otherwise the transfer starts again. The file gets
its final name once its length is right, and its MD5 too where the server publishes one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from violence_detection.download.http_facts import (
    content_length,
    content_range,
    lasting_reason,
    network_reason,
    proxy_refusal,
    published_md5,
    request_reason,
    retry_after_s,
)
from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.system.redaction import safe_url

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import requests

#: The most that a cut connection can cost.
_CHUNK_BYTES = 1 << 16
_RETRY_STATUS = frozenset({408, 425, 429})
#: Server errors that are not retried: 501 and 505 (not supported), 511 (the network requires a log-in). All others from
#: 500 on are.
_LASTING_STATUS = frozenset({501, 505, 511})
#: Access refused. Object stores send 400 or 403 when a signed address has expired.
_REFUSED_STATUS = frozenset({400, 401, 403, 404, 410})


class FetchError(UserError):
    """A file could not be fetched. What has arrived is kept if it can be continued."""


class Refused(FetchError):
    """The server refused access to the file (400, 401, 403, 404 or 410)."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class NotTheFile(FetchError):
    """The server sent a web page instead of the file."""


class WrongBytes(FetchError):
    """All bytes arrived, but their MD5 is not the published one. The part has been deleted."""


class Interrupted(FetchError):
    """Another thread stopped the transfer. The part is kept."""


class TryAgain(Exception):
    """A temporary fault, after which a retry may help. `Remote.locate` may raise it too.

    `wait_s`: the wait that the server requests, None if it requests none.
    """

    def __init__(self, reason: str, wait_s: float | None = None):
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Policy:
    """How often to retry and how long to wait.

    `attempts`: consecutive failures that are followed by a retry; `refreshes`: new signed addresses to ask for. Both
    counts start again when new bytes have arrived. A server may request a wait of at most `max_wait_s`.
    """

    attempts: int = 8
    first_wait_s: float = 1.0
    max_wait_s: float = 300.0
    connect_timeout_s: float = 20.0
    read_timeout_s: float = 60.0
    refreshes: int = 3

    def wait_s(self, attempt: int) -> float:
        """Exponential back-off, less up to 25 % of jitter, so that several transfers do not retry at once."""
        return min(self.first_wait_s * 2**attempt, self.max_wait_s) * random.uniform(0.75, 1.0)


@dataclass(frozen=True)
class Location:
    """Where the file can be fetched at present.

    `request`: the URL with all headers. `md5` (hex) and `size_bytes`: as the server publishes them, None if unknown.
    """

    request: requests.PreparedRequest
    md5: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    `identity` names it in messages and in `<name>.part.json`, and contains no secrets. `locate` returns the current
    location; it raises FetchError for a lasting fault and TryAgain for a temporary one. If `expires`, the address is
    signed for a limited time, and `locate` is called again when the server refuses it. `remedy` is added to messages.
    """

    identity: str
    locate: Callable[[], Location]
    expires: bool = False
    remedy: str = "Open the address in a browser to see what the server wants."


@dataclass
class _State:
    """Which version of which file the bytes in `<name>.part` belong to."""

    identity: str
    etag: str | None = None
    last_modified: str | None = None
    size_bytes: int | None = None
    md5: str | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong entity tag, else the date, else None (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def plain(url: str) -> Remote:
    """A file at a fixed address. Each attempt follows its redirects again, so that signed addresses do not expire."""
    import requests

    return Remote(identity=safe_url(url), locate=lambda: Location(requests.Request("GET", url).prepare()))


def part_path(destination: Path) -> Path:
    return destination.with_name(destination.name + ".part")


def fetch(
    remote: Remote,
    destination: Path,
    *,
    policy: Policy | None = None,
    on_bytes: Callable[[int], None] = lambda n: None,
    stop: threading.Event | None = None,
    before_named: Callable[[], None] = lambda: None,
) -> None:
    """Fetch `remote` to `destination`, continuing `<destination>.part` where that is safe.

    `on_bytes` is called with the number of bytes that have arrived, a negative one when a transfer starts again.
    `before_named` is called once the file is complete, before it gets its name. Raises FetchError (Refused, NotTheFile,
    WrongBytes, Interrupted) with the remedy, and OSError when the disk cannot be written to. A destination that exists
    is not fetched: it got its name only when it was complete.
    """
    if destination.exists():
        on_bytes(destination.stat().st_size)
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    with storage.naming(destination):
        _Transfer(remote, destination, policy or Policy(), on_bytes, stop or threading.Event()).run(
            before_named
        )


class _Transfer:
    def __init__(
        self,
        remote: Remote,
        destination: Path,
        policy: Policy,
        on_bytes: Callable[[int], None],
        stop: threading.Event,
    ):
        import requests

        self.remote, self.destination, self.policy = remote, destination, policy
        self.on_bytes, self.stop = on_bytes, stop
        self.part = part_path(destination)
        self.state_path = destination.with_name(destination.name + ".part.json")
        self.state = self._load_state()
        self.have = self.part.stat().st_size if self.part.exists() else 0
        self.session = requests.Session()
        self.location: Location | None = None

    def run(self, before_named: Callable[[], None]) -> None:
        self.on_bytes(self.have)
        failures = refreshes = 0
        # the most bytes ever received: a server without Range begins again at 0 in every attempt, and bytes that have
        # arrived once already are no progress
        furthest = self.have
        with self.session:
            while not self._is_whole():
                try:
                    self._attempt()
                    continue
                except Refused as e:
                    if not self.remote.expires or refreshes >= self.policy.refreshes:
                        raise
                    refreshes += 1
                    self.location = None
                    log.info(
                        "%s: the server answered %s; asking for a new address", self.remote.identity, e.status
                    )
                    fault = TryAgain(str(e), wait_s=0.0)
                except TryAgain as e:
                    fault = e
                if self.have > furthest:
                    furthest = self.have
                    failures = refreshes = 0
                failures += 1
                self._pause(fault, failures)
        self._finish(before_named)

    def _load_state(self) -> _State:
        """The saved state. If it is unreadable or belongs to another file, a new state, and the part is deleted."""
        try:
            saved = _State(**storage.read_json(self.state_path))
        except (OSError, ValueError, TypeError):
            saved = _State(identity="")
        if saved.identity == self.remote.identity:
            return saved
        self.part.unlink(missing_ok=True)
        return _State(identity=self.remote.identity)

    def _is_whole(self) -> bool:
        return self.state.size_bytes is not None and self.have == self.state.size_bytes

    def _pause(self, fault: TryAgain, failures: int) -> None:
        if failures > self.policy.attempts:
            raise FetchError(
                f"{self.remote.identity}: gave up after {failures} attempts without a new byte: {fault}. "
                f"{self.have:,} bytes are kept; run the same command again to continue"
            )
        wait_s = self.policy.wait_s(failures - 1) if fault.wait_s is None else fault.wait_s
        if wait_s > self.policy.max_wait_s:
            raise FetchError(
                f"{self.remote.identity}: {fault}; the server asks for a wait of {wait_s:.0f} s. "
                f"{self.have:,} bytes are kept; run the same command again after that time"
            )
        log.info("%s: %s; trying again in %.1f s (retry %d)", self.remote.identity, fault, wait_s, failures)
        if self.stop.wait(wait_s):
            self._stopped()

    def _stopped(self) -> NoReturn:
        raise Interrupted(f"{self.remote.identity}: interrupted; run the same command again to continue")

    def _attempt(self) -> None:
        """Send one request and append what arrives to the part."""
        import requests

        try:
            if self.location is None:
                self.location = self.remote.locate()
            with self._send(self.location) as response:
                self._receive(response)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as e:
            if lasting := lasting_reason(e):
                raise FetchError(f"{self.remote.identity}: {lasting}") from e
            if isinstance(e, requests.exceptions.SSLError):
                raise TryAgain("the encrypted connection broke") from e
            raise TryAgain(network_reason(e)) from e
        except (requests.RequestException, ValueError) as e:
            raise FetchError(f"{self.remote.identity}: {request_reason(e)}. {self.remote.remedy}") from e

    def _send(self, location: Location) -> requests.Response:
        request = location.request.copy()
        request.headers["Accept-Encoding"] = "identity"
        if self.have and self.state.validator:
            request.headers["Range"] = f"bytes={self.have}-"
            request.headers["If-Range"] = self.state.validator
        settings = self.session.merge_environment_settings(str(request.url), {}, True, None, None)
        timeouts = (self.policy.connect_timeout_s, self.policy.read_timeout_s)
        return self.session.send(request, timeout=timeouts, **settings)

    def _receive(self, response: requests.Response) -> None:
        status = response.status_code
        if status in _RETRY_STATUS or (status >= 500 and status not in _LASTING_STATUS):
            raise TryAgain(
                f"the server answered {status}", retry_after_s(response.headers.get("Retry-After"))
            )
        if status == 407:
            raise FetchError(f"{self.remote.identity}: {proxy_refusal('407')}")
        if status in _REFUSED_STATUS:
            raise Refused(
                f"{self.remote.identity}: the server answered {status}. {self.remote.remedy}", status
            )
        if status == 416:
            self._restart()
            raise TryAgain("the partial download is longer than the published file", wait_s=0.0)
        if status not in (200, 206):
            raise FetchError(
                f"{self.remote.identity}: the server answered with the unexpected status {status}. {self.remote.remedy}"
            )
        chunks = self._chunks(response)
        first = next(chunks, b"")
        self._refuse_web_page(response, first)
        self._align(response)
        with self.part.open("ab") as f:
            self._append(f, first)
            for chunk in chunks:
                self._append(f, chunk)
        if self.state.size_bytes is None:  # a chunked response that ended properly is complete
            self.state.size_bytes = self.have
            self._save_state()
        if not self._is_whole():
            raise TryAgain(f"{self.have:,} of {self.state.size_bytes:,} bytes arrived")

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        for chunk in response.iter_content(_CHUNK_BYTES):
            if self.stop.is_set():
                self._stopped()
            yield chunk

    def _append(self, file: Any, chunk: bytes) -> None:
        file.write(chunk)
        file.flush()
        self.have += len(chunk)
        self.on_bytes(len(chunk))

    def _refuse_web_page(self, response: requests.Response, first: bytes) -> None:
        """Raise NotTheFile for HTML. Called before the part is changed, so that a web page never destroys it."""
        content_type = response.headers.get("Content-Type", "")
        is_html = re.match(rb"\s*(<!doctype html|<html)", first[:256], re.IGNORECASE)
        starts_at_zero = response.status_code == 200
        if "text/html" in content_type.lower() or (starts_at_zero and is_html):
            title = re.search(rb"<title[^>]*>([^<]{1,120})", first, re.IGNORECASE)
            name = f' ("{title[1].decode("utf-8", "replace").strip()}")' if title else ""
            raise NotTheFile(
                f"{self.remote.identity}: the server sent a web page{name} instead of the file, most likely "
                f"a log-in, consent or quota page. {self.remote.remedy}"
            )

    def _align(self, response: requests.Response) -> None:
        """Make sure that the part ends where the response's body begins, and note which version of the file it is.

        Empties the part if the server sends the whole file. Raises TryAgain if the range does not fit the part or the
        published file has changed.
        """
        headers = response.headers
        if response.status_code == 206:
            start, total = content_range(headers.get("Content-Range", ""))
            same_tag = self.state.etag is None or headers.get("ETag", self.state.etag) == self.state.etag
            known = self.state.size_bytes
            if start == self.have and same_tag and (total is None or known is None or total == known):
                self.state.size_bytes = known if total is None else total
                return
            self._restart()
            raise TryAgain("the published file has changed since the last attempt", wait_s=0.0)
        if self.have:
            log.info("%s: the server sends the whole file again; starting over", self.remote.identity)
        self._restart()
        encoded = headers.get("Content-Encoding", "identity") != "identity"
        self.state = _State(
            identity=self.remote.identity,
            etag=None if encoded else headers.get("ETag"),
            last_modified=None if encoded else headers.get("Last-Modified"),
            size_bytes=None if encoded else content_length(headers),
            md5=published_md5(headers.get("x-goog-hash")) or (self.location.md5 if self.location else None),
        )
        self._save_state()

    def _restart(self) -> None:
        """Empty the part, then reset its state. In this order, a run killed in between leaves nothing wrong behind."""
        self.part.write_bytes(b"")
        self.on_bytes(-self.have)
        self.have = 0
        self.state = _State(identity=self.remote.identity)
        self._save_state()

    def _save_state(self) -> None:
        storage.write_json(self.state_path, dataclasses.asdict(self.state))

    def _finish(self, before_named: Callable[[], None]) -> None:
        """Check the published hash, then give the file its name."""
        if self.state.md5 and _md5_file(self.part) != self.state.md5:
            self.part.unlink()
            self.state_path.unlink()
            raise WrongBytes(
                f"{self.remote.identity}: the {self.have:,} bytes that arrived do not have the MD5 that the "
                f"server publishes; they were deleted. Run the same command again; if this happens again, a proxy "
                f"is altering the data"
            )
        storage.sync_file(self.part)
        before_named()
        self.part.replace(self.destination)
        self.state_path.unlink(missing_ok=True)


def _md5_file(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
