"""The speed of a training run, for its log lines and TensorBoard."""

from __future__ import annotations

import math
import time

from violence_detection.system import machine

#: Seconds between two queries of the GPUs' use, at least. A query takes about 0.1 s.
_LOOK_AT_GPUS_EVERY_S = 10.0


class Pace:
    """The speed of a run, the time and cost that remain, and the use of the GPUs."""

    def __init__(self, usd_per_hour: float):
        self.usd_per_hour = usd_per_hour
        self.samples, self.fit_s, self.epoch_s = 0, 0.0, 0.0
        self.last: tuple[int, float] = (0, 1.0)
        self.gpus: list[machine.Gpu] = []
        self._looked = -_LOOK_AT_GPUS_EVERY_S

    def go_on(self, samples: int, fit_s: float) -> None:
        """Add what earlier processes have done of a run that is continued: samples, and seconds spent on them."""
        self.samples, self.fit_s = samples, fit_s

    def epoch(self, samples: int, fit_s: float, epoch_s: float) -> None:
        """Add an epoch. `fit_s`: seconds of training alone. `epoch_s`: seconds with everything else in it too."""
        self.samples += samples
        self.fit_s += fit_s
        self.epoch_s, self.last = epoch_s, (samples, fit_s)
        if time.monotonic() - self._looked >= _LOOK_AT_GPUS_EVERY_S:
            self.gpus, self._looked = machine.gpus(), time.monotonic()

    @property
    def samples_per_second(self) -> float:
        return self.samples / max(self.fit_s, 1e-9)

    def scalars(self) -> dict[str, float]:
        found = {"samples_per_second": self.last[0] / self.last[1]}
        for i, gpu in enumerate(self.gpus):
            found |= {f"gpu{i}/use_percent": gpu.use_percent, f"gpu{i}/memory_mb": gpu.memory_used_mb}
        return found

    def line(self, epochs_left: int) -> str:
        left_h = epochs_left * self.epoch_s / 3600
        parts = [f" {self.last[0] / self.last[1]:.0f} samples/s"]
        parts += [f"gpu {g.use_percent:.0f} % {g.memory_used_mb / 1024:.1f} GB" for g in self.gpus]
        parts.append(f"at most {math.ceil(60 * left_h)} min left")
        if self.usd_per_hour:
            parts.append(f"{left_h * self.usd_per_hour:.2f} USD left")
        return "  ".join(parts)
