"""The JSON of each news, posted to an address."""

from __future__ import annotations

import requests
import urllib3
from requests.adapters import HTTPAdapter

from violence_detection.errors import UserError
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.system import redaction

#: Attempts after the first, and the answers that a later one may better.
_RETRIES = 3
_AGAIN = (429, 500, 502, 503, 504)


class WebhookOutput(Outbox):
    """Posts to `url`. A user and password in it are sent as HTTP's basic authentication, and shown nowhere.

    `timeout_s`: what an answer may take; `wait_s`: half of what the third attempt waits, which then doubles.
    """

    def __init__(self, url: str, timeout_s: float, wait_s: float = 0.5):
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"webhook must begin with http:// or https://. Received: {redaction.safe_url(url)}"
            )
        redaction.split(url)
        self.name = f"webhook {redaction.safe_url(url)}"
        self._url, self._timeout_s = url, timeout_s
        self._session = requests.Session()
        retry = urllib3.Retry(
            _RETRIES, backoff_factor=wait_s, status_forcelist=_AGAIN, allowed_methods=None,
            respect_retry_after_header=False,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        super().__init__()

    def close(self, timeout_s: float) -> None:
        """Send what waits, and let go of the connections."""
        super().close(timeout_s)
        self._session.close()

    def deliver(self, message: EventMessage) -> None:
        """Post it. Raises requests.RequestException where no attempt is taken."""
        answer = self._session.post(
            self._url,
            data=message.text().encode(),
            headers={"Content-Type": "application/json"},
            timeout=self._timeout_s,
        )
        if not answer.ok:
            raise requests.HTTPError(f"answered {answer.status_code}")
