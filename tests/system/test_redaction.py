"""Logged text contains no credentials."""

from __future__ import annotations

import traceback

import pytest

from violence_detection.errors import UserError
from violence_detection.system import redaction


def test_redact_strips_queries_passwords_and_tokens() -> None:
    text = "for url: https://u:pw@x.org/a.zip?X-Goog-Signature=abc&b=c (Authorization: Bearer KGAT_abc.d)"
    assert redaction.redact(text) == "for url: https://x.org/a.zip?... (Authorization: Bearer ...)"


def test_a_safe_address_still_names_the_file() -> None:
    signed = "https://me:secret@x.org:8443/sets/a.zip?X-Signature=abc#part"
    assert redaction.safe_url(signed) == "https://x.org:8443/sets/a.zip"


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://10.0.0.5/user=admin_password=tlJwpbo6_channel=1_stream=0.sdp",
        "rtsp://admin:tlJwpbo6#1@10.0.0.5/s",
        "rtsp://admin:tlJ/wpbo6@10.0.0.5/s",
        "rtsp://admin:tlJ'/wpbo6@10.0.0.5/s",
    ],
)
def test_a_safe_address_holds_no_part_of_a_password_wherever_it_stands(url: str) -> None:
    safe = redaction.safe_url(url)
    assert safe.startswith("rtsp://10.0.0.5/")
    assert "tlJ" not in safe
    assert "wpbo6" not in safe


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.5:554/0/admin:geheim/main", "rtsp://10.0.0.5:554/0/.../main"),
        ("rtsp://10.0.0.5/admin:geheim", "rtsp://10.0.0.5/..."),
        ("http://10.0.0.5/live?channel=1&u=admin&q=2&p=geheim&r=1", "http://10.0.0.5/live?channel=1&u=admin&q=2&p=...&r=1"),
        ("http://10.0.0.5/live?loginuse=admin&loginpas=geheim", "http://10.0.0.5/live?loginuse=...&loginpas=..."),
        ("rtsp://10.0.0.5/ch0?user=admin&pw=geheim", "rtsp://10.0.0.5/ch0?user=admin&pw=..."),
        ("rtsp://10.0.0.5/ch0?user=admin&password=ge#heim&q=1", "rtsp://10.0.0.5/ch0?user=admin&password=...&q=1"),
        ("http://10.0.0.5/live?u=admin&p=ge#heim", "http://10.0.0.5/live?u=admin&p=..."),
        ("http://10.0.0.5/live?_sid=ge#heim", "http://10.0.0.5/live?_sid=..."),
        ("rtsp://10.0.0.5/media.amp?login=admin:geheim", "rtsp://10.0.0.5/media.amp?login=..."),
        ("rtsp://10.0.0.5:554/live?channel=1&p=2", "rtsp://10.0.0.5:554/live?channel=1&p=2"),
        ("srt://10.0.0.5:8890?streamid=read:front:me:geheim&latency=9", "srt://10.0.0.5:8890?streamid=read:front:...&latency=9"),
        ("srt://10.0.0.5:8890?streamid=read%3Afront%3Ame%3Ageheim", "srt://10.0.0.5:8890?streamid=read%3Afront%3A..."),
        ("srt://10.0.0.5:8890?streamid=#!::r=front,u=me,s=geheim", "srt://10.0.0.5:8890?streamid=#!::..."),
        ("srt://10.0.0.5:8890?streamid=read:front&latency=9", "srt://10.0.0.5:8890?streamid=read:front&latency=9"),
        ("rtsp://10.0.0.5:8554/front?jwt=geheim", "rtsp://10.0.0.5:8554/front?jwt=..."),
        ("http://10.0.0.5/live?api=1&_sid=geheim&side=2", "http://10.0.0.5/live?api=1&_sid=...&side=2"),
        ("https://cdn.org/a.m3u8?hdnea=exp=2~acl=/*~hmac=geheim", "https://cdn.org/a.m3u8?hdnea=exp=2~acl=/*~hmac=..."),
        ("udp://@239.0.0.1:5000", "udp://239.0.0.1:5000"),
        ("http://[fe80::1]:80/a/b.ts", "http://[fe80::1]:80/a/b.ts"),
    ],
)  # fmt: skip
def test_a_login_is_found_where_makers_of_cameras_put_it(url: str, shown: str) -> None:
    assert redaction.without_secrets(url) == shown
    assert (
        redaction.without_secrets(f"lost {url} at 12:30:05 and /a:b") == f"lost {shown} at 12:30:05 and /a:b"
    )


def test_what_is_no_address_is_not_shown_whole_either() -> None:
    assert redaction.safe_url("https://me:secret@[x.org/a?token=1") == "https://[x.org/a?..."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:gehe[im@10.0.0.5/s?token=geheim", "rtsp://10.0.0.5/s?..."),
        ("rtsp://me:'gehe@]im\"@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://me:geheim\uff0f@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://[fe80::1/s", "rtsp://[fe80::1/s"),
    ],
)
def test_an_address_that_cannot_be_read_is_said_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(UserError) as e:
        redaction.split(url)
    assert str(e.value).startswith(f"the address {shown} cannot be read. ")
    assert "must be percent-encoded: %5B %5D" in str(e.value)
    told = "".join(traceback.TracebackException.from_exception(e.value).format())
    assert "gehe" not in told


@pytest.mark.parametrize(
    "login",
    ["me:secret@", "me@", "me:sec@ret@", "me:sec/ret@", "me:sec#ret@", "me:sec ret@", ":secret@", "secret:@"],
)
@pytest.mark.parametrize("scheme", ["http", "rtsp", "socks5h"])
def test_no_login_is_left_in_a_text(scheme: str, login: str) -> None:
    text = f"cannot open '{scheme}://{login}host:554/live' (401)"
    assert redaction.without_secrets(text) == f"cannot open '{scheme}://host:554/live' (401)"


@pytest.mark.parametrize("login", ["me:secret@", "me@", "me:sec/ret@"])
def test_no_login_is_left_where_an_address_was_taken_for_a_path(login: str) -> None:
    assert redaction.without_secrets(f"nothing at /a/rtsp:/{login}host/1") == "nothing at /a/rtsp:/host/1"


def test_values_that_give_access_are_left_out_and_others_stay() -> None:
    text = "https://x.org/a?v=3&access_token=abc&X-Amz-Signature=d%2F&id=7#api_key=ghi and https://y.org/?q=1"
    assert redaction.without_secrets(text) == (
        "https://x.org/a?v=3&access_token=...&X-Amz-Signature=...&id=7#api_key=... and https://y.org/?q=1"
    )


@pytest.mark.parametrize(
    "text",
    [
        "https://x.org:8080/sets/a@2.zip",
        "mail to me@x.org, or see http://x.org:80 and https://x.org/@me",
        "is it this? no: 3 of 4 clips (75 %) are in a@b/c?.avi",
        "/data/what?key of it.avi",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redaction.without_secrets(text) == text
