"""test_violence_model.py with a model that does what a video's text says, for tests of the code around the model.

A "video" is a text file. A number such as `0.9` is its P(violent); crash, killed, hang, no disk, bug and unreadable are
what happens to the process that reads it; `slow` takes longer than a video may be silent, but shows signs of life;
`long` is ten minutes with a fight in the third, reported while it is judged.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.models import calibration, shipped
from violence_detection.prediction import batch
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.events import JudgedWindow, JudgingNews, Verdict
from violence_detection.system import processes

SILENCE_S = 1.5
#: The environment variable with the file to which the process adds a line when it starts, and one per file to judge.
SEEN = "STAND_IN_SEEN"
#: The environment variable that says what happens when the model is loaded.
LOADING = "STAND_IN_LOADING"


def _see(what: str) -> None:
    if SEEN in os.environ:
        with Path(os.environ[SEEN]).open("a", errors="surrogateescape") as f:
            f.write(f"{what}\n")


def load(config: PredictConfig) -> batch.Judge:
    _see("loading")
    happens = os.environ.get(LOADING)
    if happens == "crash":
        os.abort()
    if happens == "user":
        raise UserError("the weights are not here. Fetch them")

    def judge(path: Path, begun: Sequence[JudgedWindow]) -> Verdict:
        _see(path.name)
        text = path.read_text()
        if text == "crash":
            os.abort()
        if text == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "hang":
            time.sleep(600)
        if text == "no disk":
            raise OSError(5, "Input/output error")
        if text == "bug":
            raise KeyError("a bug")
        if text == "unreadable":
            raise UnreadableVideo(path, "no frames")
        if text == "slow":
            for _ in range(20):
                time.sleep(SILENCE_S / 10)
                processes.beat()
            text = "0.5"
        if text == "long":
            return _long(path, config, begun)
        time.sleep(float(os.environ.get("STAND_IN_TAKES_S", "0")))
        p, _, warning = text.partition(" ")
        windows = (JudgedWindow(0.0, 5.0, float(p)), JudgedWindow(2.5, 7.5, 0.1))
        model = calibration.read(shipped.find(config.model))
        events_by = config.at(model.threshold(config.operating_point, config.threshold))
        calibrated = model.temperature is not None
        return Verdict(str(path), windows, events_by, 7.5, 7.5, warning, calibrated, 25.0)

    return judge


def _long(path: Path, config: PredictConfig, begun: Sequence[JudgedWindow]) -> Verdict:
    windows = tuple(JudgedWindow(5.0 * i, 5.0 * i + 5, 0.9 if 24 <= i < 36 else 0.1) for i in range(120))
    if begun:
        assert tuple(begun) == windows[: len(begun)]
        processes.tell(JudgingNews(tuple(begun), begun[-1].end_s, 600.0, before=True))
    for first in range(len(begun), 120, 16):
        new = windows[first : first + 16]
        _see(f"from {first}")
        time.sleep(float(os.environ.get("STAND_IN_TAKES_S", "0.01")))
        processes.tell(JudgingNews(new, new[-1].end_s, 600.0))
    return Verdict(str(path), windows, config.at(config.threshold), 600.0, 600.0, fps=25.0)


batch.load_judge = load
batch.SILENCE_LIMIT_S = SILENCE_S

if __name__ == "__main__":
    import test_violence_model
    from violence_detection import cli

    cli.run_main(test_violence_model.main)
