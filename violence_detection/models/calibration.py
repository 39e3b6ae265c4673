"""A trained model's calibration: the temperature of its probabilities, and the thresholds of its operating points.

It is stored under `calibration` in ensemble.json, or in the config.json of a single model; there it is that of the
epoch that is kept (best_model), and the last epoch (final_model) has none. Of an ensemble the average is calibrated,
not the members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.constants import BALANCED, DEFAULT_THRESHOLD
from violence_detection.errors import UserError
from violence_detection.models import averaging, model_files
from violence_detection.models.averaging import EarlyExit
from violence_detection.training import run_folder

#: Key in `rests_on`: True if the model was adapted after its calibration.
BEFORE_ADAPTING = "before_adapting"
#: scikit-learn's temperature scaling searches no higher, and no lower than the inverse of this.
MOST_TEMPERATURE = math.exp(10)
#: Key in `rests_on`: how many views of a clip were averaged, as by --tta.
VIEWS = "views"
#: Key in `rests_on`: {n, n_groups} of the clips that the early exit leaves to all members, if the temperature was
#: fitted on these alone.
TEMPERATURE_FROM = "temperature_from"
_WITHOUT_EXIT = "without_exit"
#: What is stored under _WITHOUT_EXIT.
_WITHOUT_EXIT_KEYS = ("temperature", "why_not")
_NOT_CALIBRATED = (
    "it was made before models were calibrated; the command that trained it, run again, adds the calibration without "
    "training again"
)
_OF_MEMBER = "members are left as they are; of an ensemble only the average is calibrated"


@dataclass(frozen=True)
class Calibration:
    """The calibration of one model.

    `temperature`: if None, probabilities stay as they are, and `why_not` says why.
    `rests_on`: {what, n, n_groups, views} of the predictions that the calibration was fitted on. TEMPERATURE_FROM is
    there if the temperature was fitted on some of them alone. BEFORE_ADAPTING is there if they were made before the
    model was adapted (adapted_model.py), so that the calibration may not fit the model as it is now.
    `operating_points`: name, with underscores -> {threshold, false_alarm_rate, recall, guarantee, ...}, see
    evaluation.operating_points. Where `early_exit` is false in one, its threshold and figures are of probabilities
    without the early exit.
    `without_exit`: for a model with an early exit, the temperature of its probabilities without that exit; None if the
    model has no early exit, or was calibrated by a version that did not record it.
    """

    temperature: float | None
    rests_on: Mapping[str, Any] = field(default_factory=dict)
    operating_points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    why_not: str = ""
    without_exit: Calibration | None = None

    @property
    def calibrated(self) -> bool:
        """Whether there is a temperature, fitted on predictions of the model as it is now."""
        return self.temperature is not None and not self.rests_on.get(BEFORE_ADAPTING)

    def apply(self, p: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N,) for averages `p` (N,) in [0, 1]: each logit is divided by the temperature.

        Guo et al. 2017, "On Calibration of Modern Neural Networks", as scikit-learn computes it. The order is kept,
        and so is the side of 0.5 on which a probability lies. NaN stays NaN.
        """
        return np.asarray(p) if self.temperature is None else averaging.scaled(p, 1 / self.temperature)

    def before(self, p: np.ndarray) -> np.ndarray:
        """The averages (N,) that become the calibrated probabilities `p` (N,): the inverse of `apply`."""
        return np.asarray(p) if self.temperature is None else averaging.scaled(p, self.temperature)

    def threshold(self, point: str = BALANCED, otherwise: float = DEFAULT_THRESHOLD) -> float:
        """The threshold of an operating point; that of `balanced` is `otherwise`.

        Raises UserError if no such point is stored with the model.
        """
        if point == BALANCED:
            return otherwise
        found = self.operating_points.get(key_of(point))
        if found is None:
            raise UserError(
                f"the model has no threshold for the operating point {point}: {self.why_not or _NOT_CALIBRATED}. Use "
                f"the operating point {BALANCED}, which every model has"
            )
        return float(found["threshold"])

    def leaves_out(
        self, exits: EarlyExit | None, point: str = BALANCED, otherwise: float = DEFAULT_THRESHOLD
    ) -> bool:
        """Whether the model's early exit, `exits`, is not taken at an operating point.

        `otherwise`: the threshold of `balanced`. The exit is always taken if the model was calibrated by a version that
        did not record the calibration without it.
        """
        if exits is None or self.without_exit is None:
            return False
        if point == BALANCED:
            return exits.decides_at(otherwise)
        return self.operating_points.get(key_of(point), {}).get(averaging.EARLY_EXIT_KEY) is False

    def described(self) -> str:
        """The temperature and what it was fitted on, or why there is none; one line for people."""
        if self.temperature is None:
            return f"not calibrated: {self.why_not}"
        r = self.rests_on
        of, left = r.get(TEMPERATURE_FROM, r), ", those that the early exit leaves" * (TEMPERATURE_FROM in r)
        said = (
            f"temperature {self.temperature:.2f}, from {of['n']} clips of {of['n_groups']} sources{left}: {r['what']}"
            + (f", {_of_views(r[VIEWS])}" if r.get(VIEWS, 1) > 1 else "")
        )
        return (
            said
            if self.calibrated
            else f"not checked since it was adapted to footage without labels; before, {said}"
        )

    @property
    def views(self) -> int | None:
        """How many views of a clip were averaged, as by --tta, when the calibration was fitted; None: not recorded."""
        return self.rests_on.get(VIEWS)

    def other_views(self, views: int) -> str:
        """A warning that `views` views of a clip are averaged, but another number when the calibration was fitted.

        Empty if the numbers are the same, if that of the calibration was not recorded, or if the model has no operating
        points, so that nothing is promised.
        """
        fitted = self.views
        if fitted in (None, views) or not self.operating_points:
            return ""
        judged = f"calibrated on {_of_views(fitted)}, and {_of_views(views)} are judged here"
        if views < fitted:
            return (
                f"{judged}: these vary more, so that operating points may raise more false alarms, and miss more "
                "fights, than they promise, and P(violent) is on another scale"
            )
        return (
            f"{judged}: these vary less, so that fewer reach a high threshold, fights too, and P(violent) is on "
            "another scale"
        )

    def record(self) -> dict[str, Any]:
        """The calibration as it is stored in JSON; see `read`."""
        return {
            "temperature": self.temperature,
            "why_not": self.why_not,
            "rests_on": dict(self.rests_on),
            "operating_points": {name: dict(point) for name, point in self.operating_points.items()},
            **(
                {_WITHOUT_EXIT: {k: w.record()[k] for k in _WITHOUT_EXIT_KEYS}}
                if (w := self.without_exit)
                else {}
            ),
        }


#: The calibration of the models of folds, and of models trained without one data set.
OF_FOLDS = Calibration(
    None,
    why_not="models of folds are left as they are; what they say of clips held out calibrates the ensemble",
)


def _of_views(views: int) -> str:
    return "single views" if views == 1 else f"means of {views} views"


def key_of(point: str) -> str:
    """The name of an operating point in JSON: with underscores for the hyphens of its flag."""
    return point.replace("-", "_")


def name_of(key: str) -> str:
    """The name of an operating point as a flag has it: with hyphens for the underscores of JSON."""
    return key.replace("_", "-")


def read(path: Path) -> Calibration:
    """The calibration of a model file, a model folder or an ensemble folder, read without loading the model.

    Raises UserError if there is no model, or what is stored is not a valid calibration.
    """
    (_, file, _), *_ = model_files.listed(path)
    ensemble = path / run_folder.ENSEMBLE_NAME
    if ensemble.is_file():
        return _parse(ensemble)
    if file.stem == Path(run_folder.FINAL_NAME).stem:
        return Calibration(None, why_not=f"only {run_folder.BEST_NAME} is, not the last epoch")
    return _parse(model_files.record_path(file))


def _parse(path: Path) -> Calibration:
    record = run_folder.read_object(path)
    stored = record.get(run_folder.CALIBRATION_KEY)
    if stored is None:
        return Calibration(None, why_not=_OF_MEMBER if run_folder.JOB_KEY in record else _NOT_CALIBRATED)
    if not _is_calibration(stored):
        raise run_folder.damaged(
            path, f"its {run_folder.CALIBRATION_KEY} has no valid temperature and thresholds"
        )
    without, rests_on = stored.get(_WITHOUT_EXIT), stored["rests_on"]
    of_all = {name: value for name, value in rests_on.items() if name != TEMPERATURE_FROM}
    return Calibration(
        stored["temperature"],
        rests_on,
        stored["operating_points"],
        str(stored.get("why_not", "")),
        without and Calibration(without["temperature"], of_all, why_not=str(without.get("why_not", ""))),
    )


def _is_calibration(stored: Any) -> bool:
    """Whether all values that are used are there, of the right type and in range: the file may come from anybody."""
    if not isinstance(stored, dict) or not {"temperature", "rests_on", "operating_points"} <= stored.keys():
        return False
    temperature, rests_on, points = (stored[k] for k in ("temperature", "rests_on", "operating_points"))
    if not _is_temperature(temperature) or not isinstance(rests_on, dict) or not isinstance(points, dict):
        return False
    without = stored.get(_WITHOUT_EXIT)
    if without is not None and not (
        isinstance(without, dict) and _is_temperature(without.get("temperature", 0))
    ):
        return False
    if temperature is not None and not {"what", "n", "n_groups"} <= rests_on.keys():
        return False
    left = rests_on.get(TEMPERATURE_FROM, {"n": 0, "n_groups": 0})
    if not isinstance(rests_on.get(VIEWS, 1), int) or not (
        isinstance(left, dict) and {"n", "n_groups"} <= left.keys()
    ):
        return False
    return all(isinstance(p, dict) and _is_point(p, without is not None) for p in points.values())


def _is_point(stored: Mapping[str, Any], without_exit: bool) -> bool:
    """Whether an operating point is valid. `without_exit`: whether the calibration without the early exit is stored."""
    taken = stored.get(averaging.EARLY_EXIT_KEY, True)
    return (taken is True or (taken is False and without_exit)) and _is_number(stored.get("threshold"), 0, 1)


def _is_temperature(value: Any) -> bool:
    return value is None or _is_number(value, 1 / MOST_TEMPERATURE, MOST_TEMPERATURE)


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
