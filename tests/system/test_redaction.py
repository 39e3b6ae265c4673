"""What is logged holds no credentials."""

from __future__ import annotations

from violence_detection.system import redaction


def test_redact_strips_queries_passwords_and_tokens() -> None:
    text = "for url: https://u:pw@x.org/a.zip?X-Goog-Signature=abc&b=c (Authorization: Bearer KGAT_abc.d)"
    assert redaction.redact(text) == "for url: https://x.org/a.zip?... (Authorization: Bearer ...)"


def test_a_safe_address_still_names_the_file() -> None:
    signed = "https://me:secret@x.org:8443/sets/a.zip?X-Signature=abc#part"
    assert redaction.safe_url(signed) == "https://x.org:8443/sets/a.zip"
