"""The settings of judging cameras, and of where news of their events goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.system.settings import BaseConfig, option


@dataclass(frozen=True)
class LiveConfig(BaseConfig):
    """How cameras are followed. Each output is off unless it is given."""

    max_delay_s: float = option(
        5.0, "cameras: a window that cannot be judged so soon after its last frame is dropped and counted"
    )
    stall_s: float = option(10.0, "cameras: without a frame for so long a camera counts as stalled")
    retry_min_s: float = option(
        0.5, "cameras: the first wait before one that is lost is tried again; it doubles each time"
    )
    retry_max_s: float = option(60.0, "cameras: the longest such wait")
    bridge_cut_s: float = option(
        10.0,
        "cameras: an event goes on across an interruption of up to so many seconds if it is still violent behind",
    )
    clip_max_s: float = option(120.0, "cameras: the longest clip of an event (--clips)")
    on_event: str | None = option(
        None,
        "cameras: a command that is run for each news of an event, with its JSON on stdin; no shell reads it",
    )
    on_event_timeout_s: float = option(30.0, "cameras: such a command is killed after so many seconds")
    webhook: tuple[str, ...] = option(
        (), "cameras: an address to which the JSON of each news is posted; may be given several times",
        many="append", shown_as="URL",
    )  # fmt: skip
    webhook_timeout_s: float = option(5.0, "cameras: how long a webhook may take to answer")
    mqtt: str | None = option(
        None,
        "cameras: mqtt://[user@]host[:port] (or mqtts://) of a broker; the password comes from $MQTT_PASSWORD",
    )
    mqtt_ca: Path | None = option(
        None,
        "cameras: a PEM file with the CA that a broker's certificate is of, where the system knows it not",
    )
    mqtt_prefix: str = option("violence", "cameras: the beginning of all MQTT topics")
    metrics_port: int = option(0, "cameras: a port on which Prometheus can read figures; 0: none")
    metrics_address: str = option(
        "127.0.0.1", "cameras: the address of that port; 0.0.0.0: reachable from elsewhere"
    )

    def __post_init__(self) -> None:
        """Raises UserError for a setting that cannot work."""
        super().__post_init__()
        for name in (
            "max_delay_s", "stall_s", "retry_min_s", "retry_max_s", "clip_max_s", "on_event_timeout_s",
            "webhook_timeout_s",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be above 0 seconds. Received: {getattr(self, name)}")
        if not 0 <= self.bridge_cut_s < math.inf:
            raise UserError(f"bridge_cut_s must be 0 or more seconds. Received: {self.bridge_cut_s}")
        if not 0 <= self.metrics_port <= 65535:
            raise UserError(
                f"metrics_port must be from 1 to 65535, or 0 for none. Received: {self.metrics_port}"
            )
        if not self.mqtt_prefix.strip("/") or set(self.mqtt_prefix) & set("+#"):
            raise UserError(f"mqtt_prefix must be a topic without + and #. Received: {self.mqtt_prefix!r}")
