"""Which flags each kind of run obeys. Others are refused before any work, so that nobody believes they took effect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from violence_detection.errors import UserError
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.live.config import LiveConfig

#: The model and its threshold, which also decides whether the model's early exit is taken.
_MODEL = frozenset({"model", "operating_point", "threshold", "profile", "verbose"})
_EVENTS = frozenset(f.name for f in fields(EventConfig))
#: How windows are judged.
_JUDGING = frozenset(f.name for f in fields(PredictConfig)) - _MODEL - _EVENTS
#: For each flag that starts a run of its own: the flags that this run obeys, or refuses with messages of its own.
_OBEYED = {
    "export": _MODEL | _JUDGING - {"precision"} | {"export"},
    "adapt": _MODEL | _JUDGING | {"adapt", "save_model"},
    "calibrate": _MODEL
    | _EVENTS
    | _JUDGING
    | {"calibrate", "false_events_per_hour", "save_profile", "output"},
    "learn": _MODEL | _EVENTS | {"learn", "rejudge", "save_profile"},
}
_WHAT_IT_DOES = {
    "export": "writes a model and compares P(violent) of single windows; it gives no verdicts",
    "adapt": "writes a model and gives no verdicts",
    "calibrate": "writes a camera profile and gives no verdicts",
    "learn": "writes a camera profile from kept windows and judges no video",
}
_JUDGES_NO_KEPT = "writes a camera profile from kept windows and judges no video"


#: Flags of judging that do not apply even where --explain judges kept windows again.
_LAYS_WINDOWS = frozenset({"stride_s", "tta", "skip_still"})
_LIVE = frozenset(f.name for f in fields(LiveConfig))
#: Flags that only adjust what another flag asks for: flag -> the other flag.
_ONLY_WITH = {
    "false_events_per_hour": "calibrate",
    "explain_most": "explain",
    "clip_margin_s": "clips",
    "clip_max_s": "clips",
    "on_event_timeout_s": "on_event",
    "webhook_timeout_s": "webhook",
    "mqtt_ca": "mqtt",
    "mqtt_prefix": "mqtt",
    "metrics_address": "metrics_port",
}


def check(args: Mapping[str, Any], given: Collection[str], cameras: bool = False) -> None:
    """Raise UserError if a flag is given that the run does not obey.

    `args`: values of all flags, by name. `given`: names of the flags on the command line, also of those that repeat
    their default. `cameras`: whether cameras are judged.
    """
    given = [name for name in args if name in given]
    run = next((name for name in _OBEYED if args[name]), None)
    if run is not None:
        obeyed, does = _OBEYED[run], _WHAT_IT_DOES[run]
        if run == "calibrate":
            from violence_detection.prediction import kept_windows  # heavy, and needed by this run alone

            if kept_windows.are_at(args["calibrate"]):
                obeyed, does = obeyed - _JUDGING - {"output"}, _JUDGES_NO_KEPT
        _refuse([name for name in given if name not in obeyed], f"--{run} {does}")
        return
    if not cameras:
        _refuse(
            [name for name in given if name in _LIVE],
            "this run judges files, not cameras. To judge a recording as a camera, give growing:FILE. "
            "Events of files are in the JSON line, and in what --output and --format write",
        )
    if args["rejudge"]:
        passed_over = _LAYS_WINDOWS if args["explain"] else _JUDGING
        _refuse([name for name in given if name in passed_over], "--rejudge does not judge windows again")
    for name, asks in _ONLY_WITH.items():
        if not args[asks]:
            _refuse([name] if name in given else [], f"it applies only with --{asks.replace('_', '-')}")


def _refuse(names: Sequence[str], why: str) -> None:
    if names:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        leave_out = "Leave this flag out" if len(names) == 1 else "Leave these flags out"
        raise UserError(f"{flags} would do nothing: {why}. {leave_out}")
