"""All outputs for news: opened as the settings say, and closed together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.outputs import command, mqtt, webhook
from violence_detection.prediction.live.outputs.command import CommandOutput
from violence_detection.prediction.live.outputs.metrics import MetricsServer
from violence_detection.prediction.live.outputs.mqtt import MqttOutput
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.outputs.webhook import WebhookOutput

log = logging.getLogger(__name__)
#: At the end: time for all outputs together to send the messages that wait; none gets less than 0.5 s.
_ENDING_S = 5.0
_LOOK_EVERY_S = 0.1


def check(live: LiveConfig) -> None:
    """Raise UserError for an output that cannot work, without starting anything."""
    if live.on_event is not None:
        command.words(live.on_event)
    for url in live.webhook:
        webhook.check(url)
    if live.mqtt is not None:
        mqtt.checked(live.mqtt, live.mqtt_ca)


@contextmanager
def opened(
    live: LiveConfig, cameras: Sequence[CameraState], others: Sequence[Outbox] = ()
) -> Iterator[list[Outbox]]:
    """Open the outputs that the settings ask for and yield them with `others`; on exit, send what waits and close all.

    Raises UserError if one cannot be opened.
    """
    outboxes = list(others)
    server: MetricsServer | None = None
    try:
        if live.on_event is not None:
            outboxes.append(CommandOutput(live.on_event, live.on_event_timeout_s))
        # one by one, so that those before one that is refused are closed
        for url, name in zip(live.webhook, webhook.names(live.webhook), strict=True):
            outboxes.append(WebhookOutput(url, live.webhook_timeout_s, name=name))
        if live.mqtt is not None:
            outboxes.append(MqttOutput(live.mqtt, live.mqtt_prefix, live.mqtt_ca))
        if live.metrics_port:
            server = MetricsServer(live.metrics_address, live.metrics_port, cameras, outboxes)
        yield outboxes
    finally:
        until_s = time.monotonic() + _ENDING_S
        for outbox in outboxes:
            outbox.close(max(until_s - time.monotonic(), 0.5))
        if server is not None:
            server.close()


def wait(outboxes: Sequence[Outbox], stop: threading.Event) -> None:
    """Wait until all messages that can be sent were tried, or `stop` is set; not for a broker that is away."""
    if waiting := [o.name for o in outboxes if o.is_at_work and o.is_ready()]:
        log.info("sending the messages that are still waiting (%s); Ctrl-C ends this", ", ".join(waiting))
    while any(o.is_at_work and o.is_ready() for o in outboxes) and not stop.wait(_LOOK_EVERY_S):
        pass
