"""Estimates the time and the cost of an extraction before it starts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.features.key import BackboneRun
from violence_detection.system import machine, storage

log = logging.getLogger(__name__)


def count_variants(clips: Sequence[WantedClip]) -> int:
    """The number of variants of all clips. All streams of a variant are made together and count once."""
    return sum(len(clip.variants) for clip in clips)


def time_and_cost(seconds: float, usd_per_hour: float) -> str:
    """Duration as `40 s`, `12 min` or `3.2 h`, followed by the cost if there is a price: `3.2 h (2.24 USD)`."""
    text = f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    text = text if seconds >= 90 else f"{seconds:.0f} s"
    return text + (f" ({seconds / 3600 * usd_per_hour:.2f} USD)" if usd_per_hour else "")


def measured(work: Callable[[], None], clips: Sequence[WantedClip]) -> float:
    """Do the work on these clips and return its rate in variants per second."""
    started = time.monotonic()
    work()
    return count_variants(clips) / max(time.monotonic() - started, 1e-9)


class RateRecord:
    """The rates of earlier runs, in rates.json beside the features: by hardware, backbones and streams."""

    def __init__(self, folder: Path, run: BackboneRun):
        """`run`: the backbones and streams whose common rate this is."""
        self.path = folder / "rates.json"
        self._name = f"{hardware()}: {run.name}, {'+'.join(run.config.streams)}"

    def known(self) -> float | None:
        """Variants per second of the last such run (hardware, backbones and streams); None if there was none."""
        rate = self._read().get(self._name)
        return float(rate) if isinstance(rate, int | float) and rate > 0 else None

    def note(self, variants_per_second: float) -> None:
        """Keep the rate for the next run, unless there is a folder where rates.json belongs."""
        if self.path.is_dir():
            return
        storage.write_json(self.path, self._read() | {self._name: round(variants_per_second, 3)})

    def _read(self) -> dict[str, Any]:
        """Rates by name; none if the file is absent or damaged: the rate is then measured again."""
        try:
            found = storage.read_json(self.path)
        except (OSError, UserError):
            return {}
        return found if isinstance(found, dict) else {}


def hardware() -> str:
    """Processors and GPUs in words, such as `16 x AMD EPYC 7B13, 2 GPUs`."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return f"{os.cpu_count()} x {machine.processor()}, {gpus} GPUs"
