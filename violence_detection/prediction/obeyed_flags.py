"""Which flags the runs obey that judge no video for its verdict; others are refused before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from violence_detection.errors import UserError
from violence_detection.prediction.config import EventConfig, PredictConfig

#: Which model, and which of its thresholds: that decides, too, whether its early exit is taken.
_MODEL = frozenset({"model", "operating_point", "threshold", "profile", "verbose"})
_EVENTS = frozenset(f.name for f in fields(EventConfig))
#: How windows are judged.
_JUDGING = frozenset(f.name for f in fields(PredictConfig)) - _MODEL - _EVENTS
#: By flag the others that its run obeys, or refuses in words of its own.
_OBEYED = {
    "export": _MODEL | _JUDGING - {"precision"} | {"export", "videos"},
    "adapt": _MODEL | _JUDGING | {"adapt", "save_model"},
    "calibrate": _MODEL
    | _EVENTS
    | _JUDGING
    | {"calibrate", "false_events_per_hour", "save_profile", "output"},
    "learn": _MODEL | _EVENTS | {"learn", "rejudge", "save_profile"},
}
_WHAT_IT_DOES = {
    "export": "writes a model, compares P(violent) of single windows, and gives no verdicts",
    "adapt": "writes a model, and gives no verdicts",
    "calibrate": "writes a camera's profile, and gives no verdicts",
    "learn": "writes a camera's profile from windows that were kept, and judges none",
}
_JUDGES_NO_KEPT = "writes a camera's profile, and judges no video where windows were kept"


def check(args: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise UserError where a flag is given that the run does not obey.

    `args`: values of the flags, by name; `defaults`: those that they have where they are not given.
    """
    run = next((name for name in _OBEYED if args[name]), None)
    if run is None:
        return
    obeyed, does = _OBEYED[run], _WHAT_IT_DOES[run]
    if run == "calibrate":
        from violence_detection.prediction import kept_windows  # heavy, and others need none

        if kept_windows.are_at(args["calibrate"]):
            obeyed, does = obeyed - _JUDGING - {"output"}, _JUDGES_NO_KEPT
    given = [name for name, value in args.items() if name not in obeyed and value != defaults[name]]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"{flags} would do nothing: --{run} {does}. Leave out what it does not obey")
