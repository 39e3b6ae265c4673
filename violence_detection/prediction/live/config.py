"""Settings for judging cameras and for the outputs that news of their events goes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.errors import UserError
from violence_detection.system.settings import BaseConfig, Limits, option


@dataclass(frozen=True)
class LiveConfig(BaseConfig):
    """How cameras are watched, and where news of their events goes. Each output is off unless it is given."""

    HEADING: ClassVar[str] = "cameras"

    max_delay_s: float = option(
        5.0,
        "a window that cannot be judged within this many seconds of its last frame is dropped and counted",
        limits=Limits(above=0, most=86400),
    )
    stall_s: float = option(
        10.0,
        "a camera without a frame for this many seconds counts as stalled",
        limits=Limits(above=0, most=86400),
    )
    retry_min_s: float = option(
        0.5,
        "seconds before a lost camera is first tried again; the wait doubles each time",
        limits=Limits(above=0, most=86400),
    )
    retry_max_s: float = option(
        60.0, "longest wait between two tries, in seconds", limits=Limits(above=0, most=86400)
    )
    bridge_cut_s: float = option(
        10.0,
        "an event continues across an interruption of up to this many seconds if it is still violent afterwards",
        limits=Limits(most=86400),
    )
    clip_max_s: float = option(
        120.0, "with --clips: longest clip of an event, in seconds", limits=Limits(above=0, most=86400)
    )
    on_event: str | None = option(
        None,
        "command to run for each message about an event (new, changed, ended), with its JSON on stdin. No shell reads "
        "the command",
    )
    on_event_timeout_s: float = option(
        30.0, "with --on-event: seconds after which the command is killed", limits=Limits(above=0, most=86400)
    )
    webhook: tuple[str, ...] = option(
        (), "address to post the JSON of each message about an event to. May be given several times",
        many="append", shown_as="URL",
    )  # fmt: skip
    webhook_timeout_s: float = option(
        5.0, "with --webhook: seconds that it may take to answer", limits=Limits(above=0, most=86400)
    )
    mqtt: str | None = option(
        None,
        "MQTT broker for each message about an event and the state of each camera: mqtt://[user@]host[:port], or "
        "mqtts://. The password comes from $MQTT_PASSWORD",
    )
    mqtt_ca: Path | None = option(
        None,
        "with --mqtt: PEM file with the CA of the broker's certificate, if the system does not know it",
    )
    mqtt_prefix: str = option("violence", "with --mqtt: beginning of all topics")
    metrics_port: int = option(
        0, "port on which Prometheus can read figures; 0: none", limits=Limits(most=65535)
    )
    metrics_address: str = option(
        "127.0.0.1", "with --metrics-port: address of that port; 0.0.0.0: reachable from elsewhere"
    )

    def __post_init__(self) -> None:
        """Raise UserError for a setting that cannot work."""
        super().__post_init__()
        if self.retry_min_s > self.retry_max_s:
            raise UserError(
                f"retry_min_s (--retry-min-s) {self.retry_min_s:g} is above retry_max_s (--retry-max-s) "
                f"{self.retry_max_s:g}, the longest wait: lower the first or raise the second"
            )
        if not self.mqtt_prefix.strip("/") or set(self.mqtt_prefix) & set("+#"):
            raise UserError(
                f"mqtt_prefix (--mqtt-prefix) must be a topic without + and #. Received: {self.mqtt_prefix!r}"
            )
        try:
            self.mqtt_prefix.encode()
        except UnicodeEncodeError as e:
            raise UserError(
                f"mqtt_prefix (--mqtt-prefix) must be UTF-8 text, as MQTT requires. Received: {self.mqtt_prefix!r}"
            ) from e
