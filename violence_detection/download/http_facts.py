"""Read HTTP headers, and describe network errors without the credentials that they may contain."""

from __future__ import annotations

import base64
import email.utils
import re
import time
from collections.abc import Mapping

from violence_detection.system.redaction import redact

#: The message of http.client when a proxy refuses the tunnel to an https server.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3}(?: \w+)*)")


def lasting_reason(error: Exception) -> str:
    """The cause of a failed connection that a retry cannot fix, with its remedy; empty if a retry may help."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "the server's certificate is not trusted. If you are behind a proxy that has its own certificate, "
            "set REQUESTS_CA_BUNDLE to that certificate's file; otherwise check the clock and the network"
        )
    refused = _TUNNEL.search(text)
    return proxy_refusal(refused[1]) if refused and refused[1].startswith("4") else ""


def proxy_refusal(answer: str) -> str:
    """A message for a proxy's refusal, such as 407, that says where to name the proxy and its log-in."""
    return (
        f"the proxy answered {answer}. Set the variables http_proxy and https_proxy to a proxy that allows this "
        "connection, with its log-in (http://USER:PASSWORD@HOST:PORT)"
    )


def network_reason(error: Exception) -> str:
    """A short description of a network error. urllib3's own messages quote the whole request, signature included."""
    name = type(error).__name__
    text = redact(str(error))
    if "timed out" in text.lower() or "timeout" in name.lower():
        return "time-out: no data arrived"
    if tunnel := _TUNNEL.search(text):
        return f"the proxy answered {tunnel[1]}"
    if "incompleteread" in text.lower():
        return "the connection was cut before the announced length was reached"
    if name == "ChunkedEncodingError":
        return "the connection was cut"
    system = re.search(r"\[Errno -?\d+\] ([\w ]+)", text)
    return f"connection failed ({system[1].strip() if system else name})"


def request_reason(error: Exception) -> str:
    """A description of why a request could not even be sent, with the remedy for a malformed address."""
    # from the libraries below requests, which fail on an address that the server redirects to
    if not isinstance(error, OSError):
        return f"the server redirects to an invalid address ({redact(str(error))})"
    if type(error).__name__ in ("InvalidURL", "InvalidProxyURL"):  # its text may quote half a password
        return (
            "its address, or that of the proxy (http_proxy, https_proxy), is invalid. In a password, write / as %2F, "
            "# as %23, @ as %40 and a space as %20"
        )
    return redact(str(error))


def content_length(headers: Mapping[str, str]) -> int | None:
    """The length of the body by Content-Length, in bytes.

    None if the header is absent, is not a single number, or is overridden by Transfer-Encoding (RFC 9112, 6.3).
    """
    if "Transfer-Encoding" in headers:
        return None
    # some proxies repeat the value
    values = {value.strip() for value in headers.get("Content-Length", "").split(",")}
    value = values.pop()
    return int(value) if not values and re.fullmatch(r"[0-9]{1,18}", value) else None


def content_range(value: str) -> tuple[int | None, int | None]:
    """The start and total of `bytes <start>-<end>/<total>`. A total of `*` is None; for other values both are None."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value.strip())
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def retry_after_s(value: str | None) -> float | None:
    """The seconds to wait by a Retry-After header (seconds or a date); None if it is absent or unreadable."""
    if not value:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def published_md5(value: str | None) -> str | None:
    """The MD5 (hex) in an `x-goog-hash: crc32c=...,md5=<base64>` header, as Kaggle's object store sends it, or None."""
    match = re.search(r"md5=([A-Za-z0-9+/]{22}==)", value or "")
    if not match:
        return None
    return base64.b64decode(match[1]).hex()
