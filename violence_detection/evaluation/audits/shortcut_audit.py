"""Run the audit of shortcuts for a measured model: choose the clips, the features and the backbone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from violence_detection.backbones import engines
from violence_detection.errors import UserError
from violence_detection.evaluation.audits import shortcuts
from violence_detection.evaluation.audits.background import Backgrounds
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.features.cache import FeatureStore
from violence_detection.features.key import BackboneRun
from violence_detection.system.figures import number
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    from violence_detection.evaluation.measure import Evaluation
    from violence_detection.models.trained_model import TrainedModel

log = logging.getLogger(__name__)


def run(
    measured: Evaluation, samples: Samples, stores: Mapping[str, FeatureStore], config: EvaluationConfig
) -> dict[str, Any]:
    """Audit shortcuts and log the alarms. Backgrounds, the expensive part, only with `--audit shortcuts`."""
    import pandas as pd

    known = measured.predictions[measured.predictions.p_violent.notna()]
    judged = samples.rows[samples.rows.clip_id.isin(set(known.clip_id))]
    train = measured.clips.train
    made = shortcuts.audit(
        shortcuts.AuditedClips(
            known, judged if train is None else pd.concat([train[train.split == "train"], judged])
        ),
        measured.model,
        samples,
        stores,
        _backgrounds(measured, config) if "shortcuts" in config.audit else None,
    )
    for alarm in made["alarms"]:
        log.warning(
            "shortcut: on %s, %s alone tells the classes apart (AUC %s)",
            alarm["dataset"], alarm["check"].replace("_", " "), number(alarm["roc_auc"], 2),
        )  # fmt: skip
    return made


def check(model: TrainedModel, config: EvaluationConfig) -> None:
    """Raise UserError if `--audit shortcuts` is given and the model has no image backbone to see backgrounds with.

    Call it before anything is judged.
    """
    if "shortcuts" in config.audit and not _picture_runs(model, config):
        raise UserError(
            "--audit shortcuts needs a model with an image backbone, and this model has only "
            f"{', '.join(model.features.backbone)}: leave shortcuts out of --audit"
        )


def _picture_runs(model: TrainedModel, config: EvaluationConfig) -> list[BackboneRun]:
    return [run for run in model.backbone_runs(config.backbone_weights) if not run.backbone.is_video]


def _backgrounds(measured: Evaluation, config: EvaluationConfig) -> Backgrounds:
    """The maker of background features, which uses the model's first image backbone."""
    model = measured.model
    first, *_ = _picture_runs(model, config)

    def engine(run: BackboneRun) -> engines.Engine:
        trained_with = model.trained_with([b.name for b in run.backbones])
        return engines.create(
            config.engine,
            run.backbone,
            run.weights,
            run.config.frames,
            trained_with=trained_with,
            precision=config.precision,
        )

    return Backgrounds(first, measured.clips.base, config.workers, engine)
