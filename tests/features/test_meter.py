"""What is reported of an extraction's speed: correct shares and rates, in the log and in TensorBoard."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from violence_detection.backbones import engines
from violence_detection.backbones.engines import Engine
from violence_detection.features import meter


class _Clock:
    """A clock that advances only when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    for module in (meter, engines):
        monkeypatch.setattr(module, "time", made)
    return made


def test_the_engines_waiting_is_told_from_its_work(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(images: np.ndarray) -> np.ndarray:
        clock.now_s += 0.2
        return images

    monkeypatch.setattr(meter, "gpu_percent", lambda: (97.0, 95.0))
    images = np.zeros((20, 4, 4, 3), np.uint8)
    for pause_s, waited in ((0.0, 0.0), (0.6, 0.75)):
        engine = Engine("slow", [slow])
        measured = meter.Meter(engine, clips=8)
        for _ in range(2):
            engine.submit(images).result()
            clock.now_s += pause_s
        rates = measured.finish(2)
        assert rates.waited == pytest.approx(waited, abs=1e-9)
        assert rates.clips_per_s == pytest.approx(1 / (0.2 + pause_s))
        assert rates.frames_per_s == pytest.approx(20 / (0.2 + pause_s))
        assert rates.left_s == pytest.approx(6 * (0.2 + pause_s))
        assert "GPU 97/95 %" in str(rates)


def test_reports_come_when_due_and_become_curves(
    clock: _Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorflow")
    event_file_loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    logging.getLogger("violence_detection").propagate = True
    caplog.set_level(logging.INFO)
    with meter.Meter(Engine("fast", [np.asarray]), 9, tmp_path, every_s=30.0) as reports:
        clock.now_s += 29.0
        reports.tick(1)
        assert not caplog.records, "it is not due"
        for done in (3, 6):
            clock.now_s += 30.0
            reports.tick(done)
        rates = reports.finish(9)
    with pytest.raises(RuntimeError, match="closed"):
        reports._write_scalars(rates, 9)
    assert [r.message.split(":")[0] for r in caplog.records][:2] == ["3 of 9 clips", "6 of 9 clips"]
    (events,) = tmp_path.glob("events*")
    values = [
        (v.tag, e.step)
        for e in event_file_loader.EventFileLoader(str(events)).Load()
        for v in e.summary.value
    ]
    for tag in ("clips_per_s", "frames_per_s", "decoder_wait"):
        assert [step for t, step in values if t == tag] == [3, 6, 9]


def test_gpus_are_asked_for_their_use_and_silence_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for script, expected in (
        ("echo a, 40, 1, 9; echo b, 99, 1, 9", (40.0, 99.0)),
        ("exit 9", ()),
        ("echo a, [N/A], 1, 9", ()),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert meter.gpu_percent() == expected
