"""What HTTP headers and network errors say, without the credentials they may carry."""

from __future__ import annotations

import base64
import email.utils
import re
import time
from collections.abc import Mapping

from violence_detection.system.redaction import redact

#: What http.client says where a proxy does not connect to a server of an encrypted address.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3}(?: \w+)*)")


def lasting_reason(error: Exception) -> str:
    """What of a failed connection another try would not mend, with the remedy; empty where one may."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "the server's certificate is not trusted. Behind a proxy with a certificate of its own, set "
            "REQUESTS_CA_BUNDLE to it; otherwise check the clock and the network"
        )
    refused = _TUNNEL.search(text)
    return proxy_refusal(refused[1]) if refused and refused[1].startswith("4") else ""


def proxy_refusal(answer: str) -> str:
    """What a proxy's refusal is, 407 for instance, and where its log-in belongs."""
    return (
        f"the proxy answers {answer}. Name one that lets this through, with its log-in, in the variables http_proxy "
        "and https_proxy (http://USER:PASSWORD@HOST:PORT)"
    )


def network_reason(error: Exception) -> str:
    """A short reason; urllib3's own texts nest the whole request, signature included."""
    name = type(error).__name__
    text = redact(str(error))
    if "timed out" in text.lower() or "timeout" in name.lower():
        return "time-out: no byte came"
    if tunnel := _TUNNEL.search(text):
        return f"the proxy answers {tunnel[1]}"
    if "incompleteread" in text.lower():
        return "the connection was cut before the announced length"
    if name == "ChunkedEncodingError":
        return "the connection was cut"
    system = re.search(r"\[Errno -?\d+\] ([\w ]+)", text)
    return f"connection failed ({system[1].strip() if system else name})"


def request_reason(error: Exception) -> str:
    """What is wrong with a request that could not even be sent."""
    # of the libraries below, about an address that the server redirects to
    if not isinstance(error, OSError):
        return f"the server redirects to what is no address ({redact(str(error))})"
    if type(error).__name__ in ("InvalidURL", "InvalidProxyURL"):  # it may quote half a password
        return (
            "its address, or that of the proxy (http_proxy, https_proxy), is none. Write signs such as / # @ and "
            "spaces in a password as %2F %23 %40 %20"
        )
    return redact(str(error))


def content_length(headers: Mapping[str, str]) -> int | None:
    """Bytes of the body by Content-Length; None when absent, not one number, or overridden (RFC 9112, 6.3)."""
    if "Transfer-Encoding" in headers:
        return None
    # some proxies repeat it
    values = {value.strip() for value in headers.get("Content-Length", "").split(",")}
    value = values.pop()
    return int(value) if not values and re.fullmatch(r"[0-9]{1,18}", value) else None


def content_range(value: str) -> tuple[int | None, int | None]:
    """Start and total of `bytes <start>-<end>/<total>`; None for what is absent."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value.strip())
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def retry_after_s(value: str | None) -> float | None:
    """Seconds to wait from a Retry-After header (seconds or a date); None when absent or unreadable."""
    if not value:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def published_md5(value: str | None) -> str | None:
    """The MD5 (hex) in an `x-goog-hash: crc32c=...,md5=<base64>` header, which Kaggle's object store
    sends."""
    match = re.search(r"md5=([A-Za-z0-9+/]{22}==)", value or "")
    if not match:
        return None
    return base64.b64decode(match[1]).hex()
