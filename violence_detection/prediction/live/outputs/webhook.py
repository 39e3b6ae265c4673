"""The JSON of each news, posted to an address."""

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

#: Attempts after the first, and the answers that a later one may better.
_RETRIES = 3
_AGAIN = (429, 500, 502, 503, 504)
#: Redirections that have the same message posted again; the others make a GET without it. So many are followed.
_POSTED_AGAIN, _MOST_REDIRECTIONS = (307, 308), 5
#: A part of another address's path that is longer may be a secret.
_LONGEST_SHOWN = 20
#: Loggers of the client, which show the path of each attempt.
_CLIENT = tuple(map(logging.getLogger, ("urllib3.connectionpool", "urllib3.util.retry")))
_FORM = "an address such as http://host/path or https://host/path"


def names(urls: Sequence[str]) -> list[str]:
    """What webhooks are called: by their host alone, for the path may be the secret; a second one there has a 2."""
    places = [f"webhook {redaction.place(url)}" for url in urls]
    counts = [places[: i + 1].count(place) for i, place in enumerate(places)]
    return [place if n == 1 else f"{place} {n}" for place, n in zip(places, counts, strict=True)]


def check(url: str) -> str:
    """The path and query, as they are sent. Raises UserError for what is no address of HTTP."""
    addresses.split("--webhook", url, ("http", "https"), _FORM)
    try:
        return requests.Request("POST", url).prepare().path_url
    except requests.RequestException:
        raise addresses.refused("--webhook", url, _FORM) from None


class WebhookOutput(Outbox):
    """Posts to `url`. A user and password in it are sent as HTTP's basic authentication.

    They are shown nowhere, nor are its path and query, which services have for a secret. `timeout_s`: what an answer
    may take; `wait_s`: half of what the third attempt waits, which then doubles; `name`: see `names`.
    """

    def __init__(self, url: str, timeout_s: float, wait_s: float = 0.5, name: str = ""):
        """Raises UserError for what is no address of HTTP."""
        self.name = name or names([url])[0]
        self._url, self._timeout_s, self._path = url, timeout_s, _OwnPath(url, check(url))
        self._session = _Session()
        self._session.max_redirects = _MOST_REDIRECTIONS
        retry = urllib3.Retry(
            _RETRIES, backoff_factor=wait_s, status_forcelist=_AGAIN, allowed_methods=None,
            respect_retry_after_header=False,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TimedAdapter(max_retries=retry))
        for logger in _CLIENT:
            logger.addFilter(self._is_of_others)
        super().__init__()

    def close(self, timeout_s: float) -> None:
        """Send what waits, and let go of the connections."""
        super().close(timeout_s)
        self._session.close()
        if not self._thread.is_alive():
            for logger in _CLIENT:
                logger.removeFilter(self._is_of_others)

    def _is_of_others(self, record: logging.LogRecord) -> bool:
        """Whether the client logs it of other connections."""
        return record.threadName != self.name

    def deliver(self, message: EventMessage) -> None:
        """Post it. Raises requests.RequestException where no attempt is taken, or the address is another now."""
        try:
            answer = self._session.post(
                self._url,
                data=message.text().encode(),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout_s,
                stream=True,  # nobody reads what it says besides
            )
            answer.close()
        except requests.RequestException as e:
            said = self._path.hidden(_why(e))
        else:
            if answer.status_code < 300:
                return
            said = f"answered {answer.status_code}"
            if to := answer.headers.get("Location"):
                said += f": it is at {self._path.elsewhere(urljoin(answer.url, to))} now; give that address"
        # outside of the handler: the client's error holds the address
        raise requests.RequestException(said)


def _why(error: requests.RequestException) -> str:
    """What went wrong, without the classes of the client that stand around it."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return re.sub(r"\w+\(host='([^']*)', port=(\d+)\)", r"\1:\2", str(reason or error))


class _Session(requests.Session):
    """Follows a redirection only where the message is posted again as it is."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return super().get_redirect_target(resp) if resp.status_code in _POSTED_AGAIN else None


class _OwnPath:
    """Knows the path and query of an address, and takes them out of texts."""

    def __init__(self, url: str, sent: str):
        """`sent`: as its client sends them."""
        parts = urlsplit(url)
        whole = {sent, sent.partition("?")[0], parts.path, f"{parts.path}?{parts.query}"}
        self._whole = sorted((text for text in whole if len(text) > 1), key=len, reverse=True)
        self._segments = {segment for text in whole for segment in re.split(r"[/?]", text) if segment}

    def hidden(self, text: str) -> str:
        """The text without it, and without the path of any other address that the client was sent on to."""
        text = re.sub(r"(with url: )\S+", r"\1/...", redaction.places_in(text))
        for path in self._whole:
            text = re.sub(rf"{re.escape(path)}(?![\w-])", "/...", text)
        return text

    def elsewhere(self, url: str) -> str:
        """Another address, without what this one's path has too, and other parts that may be secrets."""
        parts = urlsplit(redaction.safe_url(url))
        shown = [
            "..." if segment in self._segments or len(segment) > _LONGEST_SHOWN else segment
            for segment in parts.path.split("/")
        ]
        path = re.sub(r"\.\.\.(/\.\.\.)+", "...", "/".join(shown))
        return f"{parts.scheme}://{parts.netloc}{path}"
