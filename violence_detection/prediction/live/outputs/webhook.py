"""The JSON of each news, posted to an address."""

from __future__ import annotations

import requests
import urllib3
from requests.adapters import HTTPAdapter

from violence_detection.errors import UserError
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.system import redaction

#: Attempts after the first, and what they wait: 0.5, 1, 2 s. Answers that a later attempt may better.
_RETRIES, _WAIT_S = 3, 0.5
_AGAIN = (429, 500, 502, 503, 504)


class WebhookOutput(Outbox):
    """Posts to `url`. A user and password in it are sent as HTTP's basic authentication, and shown nowhere."""

    def __init__(self, url: str, timeout_s: float):
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"webhook must begin with http:// or https://. Received: {redaction.safe_url(url)}"
            )
        self.name = f"webhook {redaction.safe_url(url)}"
        self._url, self._timeout_s = url, timeout_s
        self._session = requests.Session()
        retry = urllib3.Retry(
            _RETRIES, backoff_factor=_WAIT_S, status_forcelist=_AGAIN, allowed_methods=None,
            respect_retry_after_header=False,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        super().__init__()

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
