"""Figures of all cameras for Prometheus, read from the cameras' states at each request."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from violence_detection.errors import UserError
from violence_detection.prediction.live.camera_state import STATES, CameraState
from violence_detection.prediction.live.outputs.outbox import Outbox

_COUNTERS: dict[str, tuple[str, Callable[[CameraState], float]]] = {
    "violence_frames": ("Frames that were decoded", lambda c: c.frames),
    "violence_windows": ("Windows that were judged", lambda c: c.windows),
    "violence_windows_dropped": ("Windows that came too fast to be judged", lambda c: c.dropped),
    "violence_windows_sparse": ("Windows with too few frames to be judged", lambda c: c.sparse),
    "violence_reconnections": ("Times that the camera was lost and came back", lambda c: c.reconnections),
    "violence_events": ("Events", lambda c: c.events),
}
_GAUGES: dict[str, tuple[str, Callable[[CameraState], float]]] = {
    "violence_delay_seconds": ("From the last window's last frame to its judgement", lambda c: c.delay_s),
    "violence_probability": ("P(violent) of the last window", lambda c: c.p_violent),
}


class MetricsServer:
    """Serves the figures at http://address:port/metrics."""

    def __init__(self, address: str, port: int, cameras: Sequence[CameraState], outboxes: Sequence[Outbox]):
        """Raises UserError if the address or port cannot be used."""
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(_collector(cameras, outboxes))
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except (OSError, UnicodeError) as e:  # UnicodeError: `my..host` is not a host name
            is_elsewhere = isinstance(e, UnicodeError | socket.gaierror) or e.errno == errno.EADDRNOTAVAIL
            raise UserError(
                f"--metrics-port: cannot listen on {address}:{port} ({getattr(e, 'strerror', None) or e}). "
                + (
                    "Give --metrics-address one of this machine's addresses"
                    if is_elsewhere
                    else "Choose another port"
                )
            ) from e

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)


def _collector(cameras: Sequence[CameraState], outboxes: Sequence[Outbox]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class CameraFigures(Collector):
        def collect(self) -> Iterable[Any]:
            for make, figures in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
                for name, (help_text, value) in figures.items():
                    family = make(name, help_text, labels=["camera"])
                    for camera in cameras:
                        family.add_metric([camera.name], value(camera))
                    yield family
            states = GaugeMetricFamily("violence_camera_state", "1 for the state", labels=["camera", "state"])
            for camera in cameras:
                for state in STATES:
                    states.add_metric([camera.name, state], float(camera.state == state))
            yield states
            failed = CounterMetricFamily(
                "violence_messages_failed", "Messages that did not arrive", labels=["output"]
            )
            for name in sorted({outbox.name for outbox in outboxes}):
                failed.add_metric([name], sum(outbox.failed for outbox in outboxes if outbox.name == name))
            yield failed

    return CameraFigures()
