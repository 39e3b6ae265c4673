"""Publishes events and the state of cameras on an MQTT broker, in the form that home automation reads."""

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
from violence_detection.prediction.live.outputs.outbox import Outbox, message_name
from violence_detection.system import redaction

log = logging.getLogger(__name__)
#: The broker itself publishes offline when it has not heard from this run for 1.5 times this long.
_KEEPALIVE_S = 20
#: First and longest wait between attempts to reach the broker.
_WAIT_S = 1
_LONGEST_WAIT_S = 30
#: Quality of service: the client sends a message again if the connection is lost before the broker has confirmed it.
_AT_LEAST_ONCE = 1
#: Quality of service: it does not.
_AT_MOST_ONCE = 0
#: When the connection was lost this many times while a picture was being sent, the picture is too large for the broker.
_BROKEN_OFF = 3
PASSWORD = "MQTT_PASSWORD"
_FORM = "mqtt://host or mqtts://host, optionally with user@ before the host and :port after it"


class MqttOutput(Outbox):
    """Publishes these topics:

    `<prefix>/status`: online or offline (retained; offline is the last will); `<prefix>/events`: each message's JSON;
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
        #: Values that the broker is to retain, by topic, and the topics whose value has yet to be published.
        self._retained: dict[str, str] = {"status": "online"}
        self._unsent: set[str] = set()
        #: Held while retained values change and are published, by any thread: each topic's last value must go last.
        self._retaining = threading.RLock()
        self._open: set[tuple[str, str]] = set()
        self._was_connected = self._is_connected = self._is_over = False
        #: The client's numbers of what the broker has confirmed since the present message was begun.
        self._confirmed_mids: set[int] = set()
        #: The message whose picture is being sent, how many times the connection was lost meanwhile, and the size from
        #: which pictures are not sent.
        self._pictured: EventMessage | None = None
        self._broken_off, self._too_large_bytes = 0, sys.maxsize
        #: Why the broker refused the present attempt, "" if it did not, and all reasons logged since the last success.
        self._refused = ""
        self._said: set[str] = set()
        super().__init__()
        self._client.connect_async(
            parts.hostname or "localhost", parts.port or (8883 if tls else 1883), _KEEPALIVE_S
        )
        self._client.loop_start()

    def is_ready(self) -> bool:
        """Whether the broker is connected."""
        return self._is_connected

    def send(self, message: EventMessage) -> None:
        """Queue a message. ON or OFF is published at once, or as it then is when the broker is connected again."""
        with self._retaining:
            # the end of an event waits for its clip, so it may come after the beginning of the next
            change = self._open.discard if message.news.kind == END else self._open.add
            change((message.camera, message.news.event_id))
            is_open = any(camera == message.camera for camera, _ in self._open)
            self._keep(f"{message.camera}/violence", "ON" if is_open else "OFF")
        super().send(message)

    def deliver(self, message: EventMessage) -> None:
        """Publish a message and wait until the broker has confirmed it.

        Without waiting, a message that the client sends again could come after newer ones. Raises TimeoutError if the
        broker has not confirmed it when the run ends.
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
        """Publish the picture of the present message, ahead of the message. `_retaining` is held.

        At most once, because a picture at which the broker closes the connection would be sent again without end. It
        has arrived when the message after it is confirmed; on a new connection it is sent ahead of the message again.
        """
        if message := self._pictured:
            self._publish(f"{message.camera}/snapshot", message.jpeg, _AT_MOST_ONCE, retain=True)

    def _count_broken_off(self) -> None:
        """Count a lost connection; after _BROKEN_OFF during one picture, give up that one and all as large."""
        with self._retaining:
            self._broken_off += 1
            if (message := self._pictured) and self._broken_off >= _BROKEN_OFF:
                self._pictured, self._too_large_bytes = None, len(message.jpeg)
                log.warning(
                    "mqtt: %s closes the connection at the picture of %s (%d kB). Pictures of this size or larger are "
                    "no longer sent. Allow larger messages on the broker",
                    self._where, message_name(message), round(len(message.jpeg) / 1000),
                )  # fmt: skip

    def tell_state(self, camera: CameraState) -> None:
        """Publish the state of a camera if it has changed; the first time, also OFF: no event is open."""
        topic = f"{camera.name}/violence"
        if topic not in self._retained:
            self._keep(topic, "OFF")
        self._keep(f"{camera.name}/state", camera.state)

    def close(self, timeout_s: float) -> None:
        """Send the waiting messages for up to `timeout_s` seconds, publish offline, and disconnect."""
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
                log.warning("mqtt: could not publish the status offline: %s", e)
        self._client.disconnect()
        self._client.loop_stop()

    def _keep(self, topic: str, value: str) -> None:
        with self._retaining:
            if self._retained.get(topic) != value:
                self._retained[topic] = value
                self._unsent.add(topic)
            self._send_retained()

    def _send_retained(self) -> None:
        """Publish the retained values that are not published yet, if the broker is connected. `_retaining` is held.

        A broker that was away gets the values of the moment when it is back. Hence at most once: a value that the
        client sent again by itself would be older, and would stay.
        """
        if not self._is_connected:
            return
        for topic, value in self._retained.items():
            if topic in self._unsent:
                self._publish(topic, value, _AT_MOST_ONCE, retain=True)
        self._unsent.clear()

    def _publish(self, topic: str, value: str | bytes, qos: int, retain: bool) -> int:
        """Publish below the prefix; return the client's number of the message."""
        return int(self._client.publish(f"{self._prefix}/{topic}", value, qos, retain).mid)

    def _confirmed(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._confirmed_mids.add(mid)
            self._changed.notify_all()

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = f"refuses the connection: {reason}" if reason.is_failure else ""
        if self._refused:
            return
        log.info("mqtt: connected to %s", self._where)
        self._said.clear()
        with self._retaining:
            # a broker that was restarted may have forgotten all values
            self._unsent |= set(self._retained) if self._was_connected else {"status"}
            self._was_connected = True
            self._set_connected(connected=True)
            self._send_retained()
            self._send_picture()
        self._client.subscribe(f"{self._prefix}/status", _AT_LEAST_ONCE)

    def _heard(self, client: Any, userdata: Any, message: Any) -> None:
        """Publish online again after another run, or the broker for one that was killed, has published offline."""
        with self._retaining:
            if message.payload == b"offline" and self._retained["status"] == "online":
                self._unsent.add("status")
                self._send_retained()

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        was_connected = self._is_connected
        self._set_connected(connected=False)
        if was_connected:
            if reason.is_failure:
                log.warning("mqtt: lost the connection to %s (%s); trying again", self._where, reason)
            self._count_broken_off()
        elif reason.is_failure:
            self._say_once(self._refused or f"closes the connection before accepting it ({reason})")
        self._refused = ""

    def _set_connected(self, connected: bool) -> None:
        with self._changed:
            self._is_connected = connected
            self._changed.notify_all()

    def _unreachable(self, client: Any, userdata: Any) -> None:
        """Log why. The client calls this while it handles the exception, but does not pass it on."""
        self._say_once(f"cannot be reached ({_reason(sys.exc_info()[1])})")

    def _say_once(self, why: str) -> None:
        """Log why the broker is not connected, each reason once until it is."""
        if why not in self._said:
            log.warning("mqtt: %s %s; trying again", self._where, why)
        self._said.add(why)


def checked(url: str, ca: Path | None) -> tuple[SplitResult, ssl.SSLContext | None]:
    """Split a broker's address; return its parts and the TLS settings, None for mqtt://.

    `ca`: PEM file of the only CA to trust; None trusts the system's. Raises UserError if the address is not valid, if
    `ca` is given for mqtt://, or if the file contains no certificate.
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
        why = "" if tls.cert_store_stats()["x509"] else "it contains something else"
    except OSError as e:  # ssl.SSLError included
        why = _reason(e)
    if why:
        raise UserError(
            f"--mqtt-ca: cannot read a certificate from {ca} ({why}). Give the CA's certificate as a PEM file"
        )
    return parts, tls


def _reason(error: BaseException | None) -> str:
    """What is wrong, in words for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is refused: {error.verify_message}. To trust your own CA, give --mqtt-ca FILE"
        )
    return str(getattr(error, "strerror", None) or error or "unknown reason")
