"""Measures a trained model on labelled clips: figures, overlap with training, audits, groups. Notes looks at val."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.combine import manifest, val_ledger
from violence_detection.datasets.generated.marker import SAMPLE_LABEL, TRAINED_LABEL
from violence_detection.errors import UserError
from violence_detection.evaluation import (
    calibration,
    clip_groups,
    clip_set,
    comparisons,
    elsewhere,
    metrics,
    mistakes,
    own_data,
    scoring,
    training_overlap,
)
from violence_detection.evaluation.audits import label_audit, leakage, shortcut_audit
from violence_detection.evaluation.audits.labels import LabelAudit
from violence_detection.evaluation.clip_set import ClipSet
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.mistakes import Attention
from violence_detection.evaluation.training_overlap import Overlap
from violence_detection.features import extract
from violence_detection.features.config import ExtractConfig
from violence_detection.find import combined_folders
from violence_detection.models import averaging, model_files, shipped, trained_model
from violence_detection.system import storage
from violence_detection.training import training_data
from violence_detection.training.training_data import Samples
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.features.cache import FeatureStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Everything a report needs. `predictions` has NaN where a clip could not be read or judged.

    `path`: the model's folder or file. `elsewhere`: name -> evaluation of a further set. `failures`: of all sets; the
    first `n_failures` are of these clips. `looks`: looks at val before this one, None if no clip is known to be val;
    `val_ledger`: what metrics.json says about them, or why there are none. `groups`: set -> tables of clip_groups.
    `audits`: name -> record. `left_out`: see elsewhere.left_out. `nearest`: see leakage.LeakageAudit. `suspects`: None
    unless labels were audited.
    """

    predictions: pd.DataFrame
    clips: ClipSet
    views: int
    model: trained_model.TrainedModel
    result: dict[str, Any]
    failures: list[dict[str, str]]
    overlap: Overlap
    path: Path
    looks: val_ledger.Looks | None = None
    val_ledger: Mapping[str, Any] = field(default_factory=dict)
    attention: Attention = field(default_factory=dict)
    elsewhere: Mapping[str, Evaluation] = field(default_factory=dict)
    groups: Mapping[str, Any] = field(default_factory=dict)
    audits: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, Any] | None = None
    nearest: pd.DataFrame | None = None
    suspects: LabelAudit | None = None
    n_failures: int = 0

    @property
    def trained_on(self) -> int:
        """Number of judged clips that the model was trained, selected or tuned on, according to its own records."""
        return self.overlap.same_clip.found

    @property
    def generated(self) -> bool:
        """Whether the judged clips, or those trained on, are generated samples."""
        return bool(self.sample_label)

    @property
    def sample_label(self) -> str:
        """Label of the figures if the judged clips, or those trained on, are generated samples; else empty."""
        if self.clips.generated:
            return SAMPLE_LABEL
        return TRAINED_LABEL if self.model.trained_on_samples else ""

    @property
    def accuracy(self) -> float:
        """Share of the judged clips that the model is right on."""
        return float(self.result["accuracy"])

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the accuracy, with clips of one source counted as related."""
        low, high = self.result["ci95"]
        return low, high

    @property
    def n(self) -> int:
        """Number of clips that were judged."""
        return int(self.result["n"])


def measure(config: EvaluationConfig, command: str) -> Evaluation:
    """Judge and evaluate the clips of a side of combined_all or of the user's own sets, then each set from elsewhere.

    A look at val is noted with its `command`; all sets that have clips of val count as one look together. A set from
    elsewhere that cannot be measured is recorded as a failure. Raises UserError for a missing model, folder or
    manifest, for an audit that lacks what it needs, and if no clip can be judged.
    """
    earlier = comparisons.read_all(config.compare)
    own, others = own_data.sets(config)
    clips = None if own else clip_set.of_split(config)
    path = shipped.find(config.models)
    model = trained_model.load(path, config.backbone_weights).at(config.operating_point)
    left_out = elsewhere.left_out(path, model)
    # raises, before anything slow, if the backbones' weights are missing or not those of training
    model.backbone_runs(config.backbone_weights)
    shortcut_audit.check(model, config)
    clips = clips or own_data.read(config, own, model.features.window_s)
    comparisons.require_shared(earlier, clips.rows)
    doubted = (
        label_audit.out_of_fold(path, clips.data_root / "combined_all") if "labels" in config.audit else None
    )
    # read before anything is judged, so that an error is reported at once
    further = {s.name: own_data.read(config, [s], model.features.window_s, clips.data_root) for s in others}
    combined = clips.base if clips.manifest_sha256 else config.data_root / "combined_all"
    if combined_folders.has_manifest(combined):
        val_ledger.check(combined)  # raises now, not after the work, if a look cannot be noted
    look = _ValLook(combined, command, uuid.uuid4().hex)
    measured, samples, stores = _judge(model, clips, config, path, look, earlier)
    shortcuts = shortcut_audit.run(measured, samples, stores, config)
    leaks = leakage.run(measured, samples, stores, config)
    suspects = None if doubted is None else label_audit.run(doubted, stores)
    del samples
    sets, lost = {}, []
    for name, clips_elsewhere in further.items():
        log.info("elsewhere: measuring %s", name)
        try:
            sets[name], *_ = _judge(model, clips_elsewhere, config, path, look)
        except UserError as e:  # the other sets and the look at val must not be lost with it
            log.error("elsewhere: %s was not measured: %s", name, e)
            reason = f"--elsewhere {name} was not measured: {e}"
            lost += [*clips_elsewhere.failures, {"path": clips_elsewhere.split, "reason": reason}]
    return replace(
        measured,
        n_failures=len(measured.failures),
        failures=[*(f for evaluation in (measured, *sets.values()) for f in evaluation.failures), *lost],
        elsewhere=sets,
        groups=clip_groups.of_sets({clips.name: measured, **sets}, config.workers),
        audits={
            "leakage": leaks.record,
            "shortcuts": shortcuts,
            **({"labels": suspects.record} if suspects else {}),
        },
        nearest=leaks.nearest,
        suspects=suspects,
        left_out=left_out,
    )


@dataclass(frozen=True)
class _ValLook:
    """An evaluation that may look at the val of the folder `combined`. `run` is its id: it counts as one look."""

    combined: Path
    command: str
    run: str


def _judge(
    model: trained_model.TrainedModel,
    clips: ClipSet,
    config: EvaluationConfig,
    path: Path,
    look: _ValLook,
    earlier: Sequence[comparisons.EarlierReport] = (),
) -> tuple[Evaluation, Samples, Mapping[str, FeatureStore]]:
    """Evaluate one set; also return the samples and feature stores used. Clips of val in it are noted as a look."""
    import pandas as pd

    views = augment.views(config.tta, model.closer_look)
    wanted = extract.clips_of(clips.rows, clips.base, views)
    how = ExtractConfig(
        config.engine,
        config.backbone_weights,
        config.precision,
        data_root=clips.data_root,
        workers=config.workers,
    )
    extraction = extract.ensure(wanted, model.features, how)
    extraction.report(len(wanted))
    readable = extract.without_failures(clips.rows, clips.base, extraction.failures)
    samples = training_data.load(extraction.stores, readable, views, in_memory=False)
    everything = clips.rows if clips.unreadable is None else pd.concat([clips.rows, clips.unreadable])
    predictions = scoring.predict_rows(model, everything, samples)
    failures = [*clips.failures, *extraction.failures, *_not_finite(predictions, samples)]
    if failures and predictions.p_violent.isna().all():
        last = failures[-1]
        raise UserError(
            f"none of the {len(predictions)} clips could be judged. For example {last['path']}: {last['reason']}"
        )
    result = {
        **metrics.figures(predictions, model.threshold, model.member_threshold),
        "operating_point": config.operating_point,
        "calibration": _calibration(model, predictions, config.tta),
        "views": config.tta,
        **({averaging.CLOSER_LOOK_KEY: True} if model.closer_look else {}),
        "comparisons": comparisons.between_models(predictions, model.threshold, model.member_threshold),
        "earlier_reports": comparisons.with_earlier(predictions, model.threshold, earlier),
    }
    judged = set(predictions.clip_id[predictions.p_violent.notna()])
    overlap = training_overlap.compare(
        model, clips.rows[clips.rows.clip_id.isin(judged)], clips.manifest_sha256
    )
    _log_overlap(overlap)
    looks, ledger = _note_val(clips.is_val, judged, look, path, result)
    attention = mistakes.attention(model, samples, predictions)
    measured = Evaluation(
        predictions, clips, config.tta, model, result, failures, overlap, path, looks, ledger, attention
    )
    return measured, samples, extraction.stores


def _note_val(
    is_val: bool, judged: Collection[str], look: _ValLook, path: Path, result: Mapping[str, Any]
) -> tuple[val_ledger.Looks | None, dict[str, Any]]:
    """Note a look if any judged clip is val by its content, in whatever folder it is.

    Returns the looks before, or None, and what metrics.json says. `is_val`: whether the clips were asked for as val.
    """
    combined = look.combined
    if not combined_folders.has_manifest(combined):
        return None, val_ledger.record_unchecked(combined)
    seen = set(judged) & set(val_ledger.val_of(combined))
    if not seen:
        return None, val_ledger.record_of_others(len(judged), combined)
    figures = {k: result[k] for k in ("accuracy", "ci95", "n")}
    looks = note_look(combined, "evaluation", look.command, [path], len(seen), figures, look.run)
    if is_val:
        return looks, looks.record()
    are = "is" if len(seen) == 1 else "are"
    part = (
        f"{len(seen)} of these {len(judged)} clips {are} val of {combined / manifest.FILE_NAME}, by content"
    )
    return looks, {**looks.record(), "text": f"{part}; {looks.text()}"}


def note_look(
    combined: Path,
    purpose: str,
    command: str,
    models: Sequence[Path],
    val_clips: int,
    figures: Mapping[str, Any],
    run: str = "",
) -> val_ledger.Looks:
    """Note in the ledger that val was looked at with these models; return the looks before. See val_ledger.Look.

    Call it before anybody is shown the figures.
    """
    identities = [model_files.identity(model) for model in models]
    which = identities[0] if len(models) == 1 else storage.stable_hash(identities, digits=32)
    named = str(models[0]) if len(models) == 1 else f"{len(models)} models, {models[0]} and others"
    return val_ledger.note(combined, val_ledger.Look(command, purpose, named, which, val_clips, figures, run))


def _calibration(model: trained_model.TrainedModel, predictions: pd.DataFrame, views: int) -> dict[str, Any]:
    judged = predictions[predictions.p_violent.notna()]
    before = judged.get(metrics.UNCALIBRATED_COLUMN, judged.p_violent)
    return calibration.section(
        model,
        (judged.label == metrics.FIGHT).to_numpy(),
        {m.name: judged[f"p_{m.name}"].to_numpy(float) for m in model.members},
        judged.p_violent.to_numpy(float),
        before.to_numpy(float),
        judged.source_group.astype(str).to_numpy(),
        views,
    )


def _log_overlap(overlap: Overlap) -> None:
    for name, text in overlap.lines():
        log.info("%s: %s", name.lower(), text)
    if overlap.touched:
        log.warning(
            "%d of the %d clips were trained on, or are copies of such clips, or come from their sources: this is not "
            "an accuracy on unseen clips",
            overlap.touched,
            overlap.clips,
        )


def _not_finite(predictions: pd.DataFrame, samples: Samples) -> list[dict[str, str]]:
    """Failures of the clips that have features but no finite probability."""
    lost = predictions[predictions.p_violent.isna() & predictions.clip_id.isin(set(samples.rows.clip_id))]
    return [
        {"path": path, "reason": "the model's probability is not finite (nan or infinite)"}
        for path in lost.path
    ]
