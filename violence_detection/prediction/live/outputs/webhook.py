"""Posts the JSON of each piece of news to an address."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import addresses
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.outputs.timed_http import TimedAdapter
from violence_detection.system import redaction

#: Attempts after the first.
_RETRIES = 3
#: Statuses of answers after which another attempt may succeed.
_RETRY_STATUS = (429, 500, 502, 503, 504)
#: Redirections after which the same message is posted again; after others, clients send a GET without it.
_POSTED_AGAIN = (307, 308)
#: Most redirections that are followed.
_MOST_REDIRECTIONS = 5
#: A longer segment of another address's path may be a secret and is not shown.
_LONGEST_SHOWN = 20
#: Loggers of the HTTP client, which log the path of each attempt.
_CLIENT = tuple(map(logging.getLogger, ("urllib3.connectionpool", "urllib3.util.retry")))
_FORM = "an address such as http://host/path or https://host/path"


def names(urls: Sequence[str]) -> list[str]:
    """Names of webhooks: `webhook https://host`, without the path, which may be secret. A second one there has a 2."""
    places = [f"webhook {redaction.place(url)}" for url in urls]
    counts = [places[: i + 1].count(place) for i, place in enumerate(places)]
    return [place if n == 1 else f"{place} {n}" for place, n in zip(places, counts, strict=True)]


def check(url: str) -> str:
    """Return the path and query as they are sent. Raises UserError if the address is not a valid one of HTTP."""
    addresses.split("--webhook", url, ("http", "https"), _FORM)
    try:
        return requests.Request("POST", url).prepare().path_url
    except requests.RequestException:
        raise addresses.refused("--webhook", url, _FORM) from None


class WebhookOutput(Outbox):
    """Posts to `url`. A user and password in it are sent as HTTP's basic authentication.

    They are not shown anywhere, and nor are its path and query, which some services use as the secret. `timeout_s`:
    longest time for an answer; `wait_s`: half the wait before the third attempt, which doubles for the fourth (the
    second follows at once); `name`: see `names`.
    """

    def __init__(self, url: str, timeout_s: float, wait_s: float = 0.5, name: str = ""):
        """Raises UserError if `url` is not a valid address of HTTP."""
        self.name = name or names([url])[0]
        self._url, self._timeout_s, self._path = url, timeout_s, _OwnPath(url, check(url))
        self._session = _Session()
        self._session.max_redirects = _MOST_REDIRECTIONS
        retry = urllib3.Retry(
            _RETRIES, backoff_factor=wait_s, status_forcelist=_RETRY_STATUS, allowed_methods=None,
            respect_retry_after_header=False,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TimedAdapter(max_retries=retry))
        for logger in _CLIENT:
            logger.addFilter(self._is_of_others)
        super().__init__()

    def close(self, timeout_s: float) -> None:
        """Send the waiting messages for up to `timeout_s` seconds, and close the connections."""
        super().close(timeout_s)
        self._session.close()
        if not self._thread.is_alive():
            for logger in _CLIENT:
                logger.removeFilter(self._is_of_others)

    def _is_of_others(self, record: logging.LogRecord) -> bool:
        """Whether a record of the client is from another thread than this webhook's, whose records are not logged."""
        return record.threadName != self.name

    def deliver(self, message: EventMessage) -> None:
        """Post a message. Raises requests.RequestException if no attempt succeeds, or if the address has moved."""
        try:
            answer = self._session.post(
                self._url,
                data=message.text().encode(),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout_s,
                stream=True,  # the content of the answer is not read
            )
            answer.close()
        except requests.RequestException as e:
            said = self._path.hidden(_why(e))
        else:
            if answer.status_code < 300:
                return
            said = f"answered {answer.status_code}"
            if to := answer.headers.get("Location"):
                said += (
                    f": it has moved to {self._path.elsewhere(urljoin(answer.url, to))}; give that address"
                )
        # outside the handler, because the client's error contains the address
        raise requests.RequestException(said)


def _why(error: requests.RequestException) -> str:
    """What went wrong, without the names of the client's classes."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return re.sub(r"\w+\(host='([^']*)', port=(\d+)\)", r"\1:\2", str(reason or error))


class _Session(requests.Session):
    """Follows a redirection only if the same message is then posted again."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return super().get_redirect_target(resp) if resp.status_code in _POSTED_AGAIN else None


class _OwnPath:
    """Removes the path and query of an address from texts."""

    def __init__(self, url: str, sent: str):
        """`sent`: path and query as the client sends them."""
        parts = urlsplit(url)
        whole = {sent, sent.partition("?")[0], parts.path, f"{parts.path}?{parts.query}"}
        self._whole = sorted((text for text in whole if len(text) > 1), key=len, reverse=True)
        self._segments = {segment for text in whole for segment in re.split(r"[/?]", text) if segment}

    def hidden(self, text: str) -> str:
        """The text without them, and without the path of any other address that the client was redirected to."""
        text = re.sub(r"(with url: )\S+", r"\1/...", redaction.places_in(text))
        for path in self._whole:
            text = re.sub(rf"{re.escape(path)}(?![\w-])", "/...", text)
        return text

    def elsewhere(self, url: str) -> str:
        """Another address, with "..." for segments that this one also has and for others that may be secrets."""
        parts = urlsplit(redaction.safe_url(url))
        shown = [
            "..." if segment in self._segments or len(segment) > _LONGEST_SHOWN else segment
            for segment in parts.path.split("/")
        ]
        path = re.sub(r"\.\.\.(/\.\.\.)+", "...", "/".join(shown))
        return f"{parts.scheme}://{parts.netloc}{path}"
