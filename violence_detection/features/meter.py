"""Reports how fast an extraction is, and what slows it down: a log line and TensorBoard scalars every half minute."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from violence_detection.system import machine

log = logging.getLogger(__name__)

EVERY_S = 30.0


class Counts(Protocol):
    """What an engine, or several together, have done so far. `busy_s`: busy seconds, summed over all runners."""

    @property
    def images_done(self) -> int: ...
    @property
    def busy_s(self) -> float: ...
    @property
    def n_runners(self) -> int: ...


@dataclass(frozen=True)
class ExtractionRates:
    """Rates over a stretch of time. `waited`: the share of it in which the engine was idle, waiting for images.

    `gpu_percent`: utilisation of each GPU. `left_s`: estimated seconds to the end, 0 if unknown.
    """

    clips_per_s: float
    frames_per_s: float
    waited: float
    gpu_percent: tuple[float, ...]
    left_s: float

    def __str__(self) -> str:
        gpus = f", GPU {'/'.join(f'{u:.0f}' for u in self.gpu_percent)} %" if self.gpu_percent else ""
        left = f", {_duration(self.left_s)} left" if self.left_s else ""
        return (
            f"{self.clips_per_s:.2f} clips/s, {self.frames_per_s:.0f} frames/s, "
            f"the engine waited for the decoder {self.waited:.0%} of the time{gpus}{left}"
        )


class Meter:
    """Reports rates when `tick` is called and a report is due, so call it often.

    TensorBoard scalars go to `folder`; their step is the number of clips done. A file there stays open until `close`,
    or the end of a `with` statement.
    """

    def __init__(
        self,
        engine: Counts,
        clips: int,
        folder: Path | None = None,
        every_s: float = EVERY_S,
        began: tuple[float, int, float] | None = None,
    ):
        """`began`: the monotonic time of the start, and `images_done` and `busy_s` at that time; by default now."""
        self.engine, self.clips, self.folder, self.every_s = engine, clips, folder, every_s
        then, images, busy_s = began or (time.monotonic(), engine.images_done, engine.busy_s)
        self._start = self._last = (then, 0, images, busy_s)
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file of scalars, if any were written."""
        if self._writer is not None:
            self._writer.close()

    def tick(self, clips_done: int) -> None:
        """Report what was done since the last report, if that was at least `every_s` ago."""
        if time.monotonic() - self._last[0] < self.every_s:
            return
        rates = self._rates(self._last, clips_done)
        self._last = (time.monotonic(), clips_done, self.engine.images_done, self.engine.busy_s)
        log.info("%d of %d clips: %s", clips_done, self.clips, rates)
        self._write_scalars(rates, clips_done)

    def finish(self, clips_done: int) -> ExtractionRates:
        """Report the rates of the whole run, and return them."""
        rates = self._rates(self._start, clips_done)
        log.info("%d clips in %s: %s", clips_done, _duration(time.monotonic() - self._start[0]), rates)
        if self._last is not self._start:  # without an earlier report there is no curve to draw
            self._write_scalars(rates, clips_done)
        return rates

    def _rates(self, since: tuple[float, int, int, float], clips_done: int) -> ExtractionRates:
        then, clips_then, images_then, busy_then = since
        seconds = max(time.monotonic() - then, 1e-9)
        per_s = (clips_done - clips_then) / seconds
        overall = clips_done / max(time.monotonic() - self._start[0], 1e-9)
        busy = (self.engine.busy_s - busy_then) / (seconds * self.engine.n_runners)
        return ExtractionRates(
            per_s,
            (self.engine.images_done - images_then) / seconds,
            min(max(1.0 - busy, 0.0), 1.0),  # jobs count when they end, so `busy` may exceed 1
            gpu_percent(),
            (self.clips - clips_done) / overall if overall else 0.0,
        )

    def _write_scalars(self, rates: ExtractionRates, step: int) -> None:
        if self.folder is None or "tensorflow" not in sys.modules:  # every real engine has loaded it
            return
        import tensorflow as tf

        scalars = {
            "clips_per_s": rates.clips_per_s,
            "frames_per_s": rates.frames_per_s,
            "decoder_wait": rates.waited,
            **{f"gpu_{i}_percent": value for i, value in enumerate(rates.gpu_percent)},
        }
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.folder))
        with self._writer.as_default():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=step)
        self._writer.flush()


def gpu_percent() -> tuple[float, ...]:
    """Utilisation in percent of each GPU that reports it."""
    return tuple(gpu.use_percent for gpu in machine.gpus() if not math.isnan(gpu.use_percent))


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m:02} min" if hours else f"{m} min {s:02} s" if m else f"{s} s"
