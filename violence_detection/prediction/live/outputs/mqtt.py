"""Cameras, their state and their events on an MQTT broker, as home automation reads them."""

from __future__ import annotations

import logging
import os
import ssl
import sys
import threading
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from violence_detection.errors import UserError
from violence_detection.prediction.event_follower import END
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import addresses
from violence_detection.prediction.live.outputs.outbox import Outbox, said
from violence_detection.system import redaction

log = logging.getLogger(__name__)
#: The broker itself says offline when it has not heard of these scripts for 1.5 times as long.
_KEEPALIVE_S = 20
#: Waits between attempts to reach the broker.
_WAIT_S, _LONGEST_WAIT_S = 1, 30
#: What the client sends once more where a connection broke off before the broker confirmed it, and what it does not.
_AT_LEAST_ONCE, _AT_MOST_ONCE = 1, 0
#: A broker that has broken off so many times while a picture was under way takes none so large.
_BROKEN_OFF = 3
PASSWORD = "MQTT_PASSWORD"
_FORM = "mqtt://host or mqtts://host, with user@ before the host and :port behind it if need be"


class MqttOutput(Outbox):
    """Publishes below `prefix`.

    `<prefix>/status`: online or offline (retained, offline is the last will); `<prefix>/events`: the JSON of each news;
    `<prefix>/<camera>/state`: connecting, live, stalled, lost or ended (retained); `<prefix>/<camera>/violence`: ON
    while an event is open, else OFF (retained); `<prefix>/<camera>/snapshot`: the last event's picture as JPEG
    (retained).
    """

    name = "mqtt"

    def __init__(self, url: str, prefix: str, ca: Path | None = None):
        """Raises UserError as `checked` does."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        parts, tls = checked(url, ca)
        self._prefix = prefix.strip("/")
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"violence-{uuid.uuid4().hex[:12]}")
        self._client.reconnect_delay_set(_WAIT_S, _LONGEST_WAIT_S)
        self._client.will_set(f"{self._prefix}/status", "offline", _AT_LEAST_ONCE, retain=True)
        password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD)
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), password)
        if tls:
            self._client.tls_set_context(tls)
        self._where = redaction.place(url)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_connect_fail = self._unreachable
        self._client.on_publish = self._confirmed
        self._client.on_message = self._heard
        #: What is to stand on the broker, by topic, and the topics that the client has yet to be given.
        self._retained: dict[str, str] = {"status": "online"}
        self._unsent: set[str] = set()
        #: Cameras' states, events and the client's own thread all publish these; the last value of each must go last.
        self._retaining = threading.RLock()
        self._open: set[tuple[str, str]] = set()
        self._was_connected = self._is_connected = self._is_over = False
        #: The client's numbers of what the broker has confirmed of the message that is under way.
        self._confirmed_mids: set[int] = set()
        #: The message whose picture is under way, how many times the broker broke off meanwhile, and from which size on
        #: pictures are not sent.
        self._pictured: EventMessage | None = None
        self._broken_off, self._too_large_bytes = 0, sys.maxsize
        #: Why it was not let in, at the attempt that ends now, and all that was said since the broker was there.
        self._refused = ""
        self._said: set[str] = set()
        super().__init__()
        self._client.connect_async(
            parts.hostname or "localhost", parts.port or (8883 if tls else 1883), _KEEPALIVE_S
        )
        self._client.loop_start()

    def is_ready(self) -> bool:
        """Whether the broker is there."""
        return self._is_connected

    def send(self, message: EventMessage) -> None:
        """Have a message sent; whether an event is open is told at once, or as it is when the broker is there."""
        with self._retaining:
            # the end of one event, which waits for its clip, may come behind the beginning of the next
            change = self._open.discard if message.news.kind == END else self._open.add
            change((message.camera, message.news.event_id))
            is_open = any(camera == message.camera for camera, _ in self._open)
            self._keep(f"{message.camera}/violence", "ON" if is_open else "OFF")
        super().send(message)

    def deliver(self, message: EventMessage) -> None:
        """Publish it, and wait until the broker has confirmed it.

        What the client sends once more would else come behind what is newer. Raises TimeoutError where the broker has
        not done so by the end.
        """
        self._confirmed_mids.clear()
        with self._retaining:
            is_shown = message.news.kind != END and 0 < len(message.jpeg) < self._too_large_bytes
            self._pictured, self._broken_off = message if is_shown else None, 0
            self._send_picture()
        mid = self._publish("events", message.text(), _AT_LEAST_ONCE, retain=False)
        with self._changed:
            self._changed.wait_for(lambda: mid in self._confirmed_mids or self._is_over)
            is_confirmed = mid in self._confirmed_mids
        with self._retaining:
            self._pictured = None
        if not is_confirmed:
            raise TimeoutError("the broker has not confirmed it")

    def _send_picture(self) -> None:
        """Publish the picture of the message that is under way, before that. With `_retaining` held.

        At most once: what the broker breaks off at the client would send once more without end. It has come where the
        message behind it is confirmed; on a new connection it goes before that again.
        """
        if message := self._pictured:
            self._publish(f"{message.camera}/snapshot", message.jpeg, _AT_MOST_ONCE, retain=True)

    def _count_broken_off(self) -> None:
        """Give up a picture at which the broker breaks off each time, and all that are as large."""
        with self._retaining:
            self._broken_off += 1
            if (message := self._pictured) and self._broken_off >= _BROKEN_OFF:
                self._pictured, self._too_large_bytes = None, len(message.jpeg)
                log.warning(
                    "mqtt: %s breaks off at the picture of %s (%d kB): it goes without, and so do others that are as "
                    "large. Allow the broker larger messages",
                    self._where, said(message), round(len(message.jpeg) / 1000),
                )  # fmt: skip

    def tell_state(self, camera: CameraState) -> None:
        """Publish the state of a camera where it has changed."""
        topic = f"{camera.name}/violence"
        if topic not in self._retained:
            self._keep(topic, "OFF")
        self._keep(f"{camera.name}/state", camera.state)

    def close(self, timeout_s: float) -> None:
        """Send what waits, say offline, and go."""
        super().close(timeout_s)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        with self._retaining:
            self._retained["status"] = "offline"
        if self._client.is_connected():
            offline = self._client.publish(f"{self._prefix}/status", "offline", _AT_LEAST_ONCE, retain=True)
            try:
                offline.wait_for_publish(timeout_s)
            except (ValueError, RuntimeError) as e:
                log.warning("mqtt: could not say that it is offline: %s", e)
        self._client.disconnect()
        self._client.loop_stop()

    def _keep(self, topic: str, value: str) -> None:
        with self._retaining:
            if self._retained.get(topic) != value:
                self._retained[topic] = value
                self._unsent.add(topic)
            self._send_retained()

    def _send_retained(self) -> None:
        """Publish what is to stand on the broker and was not handed to the client. With `_retaining` held.

        Nothing is, while the broker is away: it is told what holds when it is back. Therefore once at most: what the
        client would send once more then is older, and would stay.
        """
        if not self._is_connected:
            return
        for topic, value in self._retained.items():
            if topic in self._unsent:
                self._publish(topic, value, _AT_MOST_ONCE, retain=True)
        self._unsent.clear()

    def _publish(self, topic: str, value: str | bytes, qos: int, retain: bool) -> int:
        """Returns the client's number of it."""
        return int(self._client.publish(f"{self._prefix}/{topic}", value, qos, retain).mid)

    def _confirmed(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._confirmed_mids.add(mid)
            self._changed.notify_all()

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = f"does not let us in: {reason}" if reason.is_failure else ""
        if self._refused:
            return
        log.info("mqtt: connected to %s", self._where)
        self._said.clear()
        with self._retaining:
            # a broker that was started anew may have forgotten all
            self._unsent |= set(self._retained) if self._was_connected else {"status"}
            self._was_connected = True
            self._be(connected=True)
            self._send_retained()
            self._send_picture()
        self._client.subscribe(f"{self._prefix}/status", _AT_LEAST_ONCE)

    def _heard(self, client: Any, userdata: Any, message: Any) -> None:
        """Say online again where another run has said offline, or the broker for one that was killed."""
        with self._retaining:
            if message.payload == b"offline" and self._retained["status"] == "online":
                self._unsent.add("status")
                self._send_retained()

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        had_it = self._is_connected
        self._be(connected=False)
        if had_it:
            if reason.is_failure:
                log.warning("mqtt: lost %s (%s); it is tried again", self._where, reason)
            self._count_broken_off()
        elif reason.is_failure:
            self._say_once(self._refused or f"breaks off before it lets us in ({reason})")
        self._refused = ""

    def _be(self, connected: bool) -> None:
        with self._changed:
            self._is_connected = connected
            self._changed.notify_all()

    def _unreachable(self, client: Any, userdata: Any) -> None:
        """Called where the client catches what went wrong, and says not what."""
        self._say_once(f"cannot be reached ({_reason(sys.exc_info()[1])})")

    def _say_once(self, why: str) -> None:
        """Say why the broker is not there, once for each reason until it is."""
        if why not in self._said:
            log.warning("mqtt: %s %s; it is tried again", self._where, why)
        self._said.add(why)


def checked(url: str, ca: Path | None) -> tuple[SplitResult, ssl.SSLContext | None]:
    """The parts of a broker's address, and how TLS is to check it; `ca`: the file of the one CA that may vouch for it.

    Raises UserError for what is no such address, and for a file that holds no certificate.
    """
    parts = addresses.split("--mqtt", url, ("mqtt", "mqtts"), _FORM)
    if parts.scheme == "mqtt":
        if ca:
            raise UserError(f"--mqtt-ca is for mqtts://. Received: {redaction.place(url)}")
        return parts, None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        tls.load_default_certs()
        return parts, tls
    try:
        tls.load_verify_locations(ca)
        why = "" if tls.cert_store_stats()["x509"] else "it holds other things"
    except OSError as e:  # ssl.SSLError is one
        why = _reason(e)
    if why:
        raise UserError(
            f"--mqtt-ca: no certificate can be read from {ca} ({why}). Give a PEM file of the CA's"
        )
    return parts, tls


def _reason(error: BaseException | None) -> str:
    """What is wrong, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}. A CA of your own is trusted with --mqtt-ca FILE"
    return str(getattr(error, "strerror", None) or error or "no reason is known")
