"""Measure a trained model on labelled clips: probabilities per clip and member, figures, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.errors import UserError
from violence_detection.evaluation import clip_set, metrics, own_data, training_overlap
from violence_detection.evaluation.clip_set import ClipSet
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.training_overlap import Overlap
from violence_detection.features import extract
from violence_detection.features.config import ExtractConfig
from violence_detection.models import shipped, trained_model
from violence_detection.training import training_data
from violence_detection.training.training_data import Samples
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuickScore:
    """Accuracy of a model with its 95 % interval, and of each member."""

    accuracy: float
    ci95: tuple[float, float]
    by_member: dict[str, float]


def score_samples(folder: Path, samples: Samples) -> QuickScore:
    """Score the model in `folder` on loaded samples (plain views)."""
    model = trained_model.load(folder)
    by_member = model.predict(samples.plain())
    for name, p in by_member.items():
        require_finite(p, samples.rows, f"{folder}, {name}")
    fights = samples.labels == 1
    correct = (model.average(by_member) >= model.threshold) == fights
    return QuickScore(
        round(float(correct.mean()), 4),
        _rounded(metrics.accuracy_interval(correct, samples.rows.source_group.to_numpy())),
        {name: round(float(((p >= model.threshold) == fights).mean()), 4) for name, p in by_member.items()},
    )


def require_finite(p: np.ndarray, rows: pd.DataFrame, who: str) -> None:
    """Raise UserError naming the first of the clips (rows of the manifest) whose probability in `p` is no number."""
    wrong = np.flatnonzero(~np.isfinite(p))
    if len(wrong):
        raise UserError(
            f"{who}: P(fight) of {len(wrong)} of {len(p)} clips is not finite (nan or infinite), first of clip "
            f"{rows.clip_id.iloc[wrong[0]]}. Train it again, with --mixed-precision off or a lower --learning-rate"
        )


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    return round(interval[0], 4), round(interval[1], 4)


@dataclass(frozen=True)
class Evaluation:
    """Everything a report needs. `predictions` has NaN where a clip could not be read or judged."""

    predictions: pd.DataFrame
    clips: ClipSet
    views: int
    model: trained_model.TrainedModel
    result: dict[str, Any]
    failures: list[dict[str, str]]
    overlap: Overlap

    @property
    def trained_on(self) -> int:
        """Clips that the model itself was trained, selected or tuned on, as far as it has noted them."""
        return self.overlap.same_clip.found

    @property
    def generated(self) -> bool:
        """Whether the clips, or those trained on, are generated samples."""
        return self.clips.generated or self.model.trained_on_samples

    @property
    def accuracy(self) -> float:
        """Share of the clips that it is right on."""
        return float(self.result["accuracy"])

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the accuracy, which counts clips of one source as related."""
        low, high = self.result["ci95"]
        return low, high

    @property
    def n(self) -> int:
        """Clips that were judged."""
        return int(self.result["n"])


def measure(config: EvaluationConfig) -> Evaluation:
    """Predict every clip of the split, or of one's own sets, and evaluate.

    Raises UserError for a missing model, folder or manifest.
    """
    import pandas as pd

    if config.tta < 1:
        raise UserError("tta counts the plain clip too, so it must be at least 1")
    own = own_data.sets(config)
    clips = None if own else clip_set.of_split(config)
    model = trained_model.load(shipped.find(config.models))
    model.backbone_runs(config.backbone_weights)  # before anything slow: are they those of training?
    clips = clips or own_data.read(config, own, model.features.window_s)
    views = augment.variant_names("t", config.tta)
    wanted = extract.clips_of(clips.rows, clips.base, views)
    how = ExtractConfig(
        config.engine, config.backbone_weights, data_root=clips.data_root, workers=config.workers
    )
    extraction = extract.ensure(wanted, model.features, how)
    extraction.report(len(wanted))
    readable = extract.without_failures(clips.rows, clips.base, extraction.failures)
    samples = training_data.load(extraction.stores, readable, views, in_memory=True)
    everything = clips.rows if clips.unreadable is None else pd.concat([clips.rows, clips.unreadable])
    predictions = predict_rows(model, everything, samples)
    failures = [*clips.failures, *extraction.failures, *_not_finite(predictions, samples)]
    result = metrics.figures(predictions, model.threshold)
    judged = set(predictions.clip_id[predictions.p_violent.notna()])
    overlap = training_overlap.compare(
        model, clips.rows[clips.rows.clip_id.isin(judged)], clips.manifest_sha256
    )
    _log_overlap(overlap)
    return Evaluation(predictions, clips, config.tta, model, result, failures, overlap)


def _log_overlap(overlap: Overlap) -> None:
    for name, text in overlap.lines():
        log.info("%s: %s", name.lower(), text)
    if overlap.touched:
        log.warning(
            "%d of the %d clips were trained on, or are copies or of the sources of clips that were: this is no "
            "accuracy on unseen clips",
            overlap.touched,
            overlap.clips,
        )


def predict_rows(model: trained_model.TrainedModel, rows: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """Rows of the manifest with p_<member> and p_violent, averaged over views.

    NaN for clips without features, and for those that any member gives no finite probability.
    """
    import pandas as pd

    by_member = model.average_views(samples.inputs)
    columns = {f"p_{name}": p for name, p in by_member.items()} | {"p_violent": model.average(by_member)}
    scored = pd.DataFrame(columns)
    finite = np.isfinite(scored.to_numpy(float)).all(axis=1)
    scored.loc[~finite] = np.nan
    scored = scored.assign(clip_id=samples.rows.clip_id)
    kept = ["clip_id", "path", "source_path", "dataset", "source_group", "label"]
    return rows[kept].merge(scored, on="clip_id", how="left")


def _not_finite(predictions: pd.DataFrame, samples: Samples) -> list[dict[str, str]]:
    """The failures of clips that have features but no probability."""
    lost = predictions[predictions.p_violent.isna() & predictions.clip_id.isin(set(samples.rows.clip_id))]
    return [
        {"path": path, "reason": "the model's probability is not finite (nan or infinite)"}
        for path in lost.path
    ]


def report(scored: Evaluation, folder: Path, command: str) -> Path:
    """Write metrics.json, predictions.csv, plots and index.html; returns the page's path."""
    from violence_detection.evaluation.report import report as report_page

    records = scored.model.records
    context = report_page.ReportContext(
        command=command,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        model=[
            ("members", ", ".join(m.name for m in scored.model.members)),
            ("backbone", ", ".join(scored.model.features.backbone)),
            ("streams", ", ".join(scored.model.features.streams)),
            ("frames a clip", str(scored.model.features.frames)),
            ("variants a training clip", _each(records, lambda r: r["augment"])),
            ("views averaged here", str(scored.views)),
            ("clips trained on", _each(records, lambda r: r["clips"]["train"])),
            (
                "clips that chose the epoch (selection; papers: validation)",
                _each(records, lambda r: r["clips"]["selection"]),
            ),
            ("manifest it was trained on", _each(records, lambda r: r["manifest_sha256"][:12])),
            ("version", _each(records, lambda r: r["version"])),
        ],
        seeds=sorted({r["train"]["seed"] for r in records}),
        generated=scored.generated,
        overlap=scored.overlap,
        split=_split(scored),
        data=scored.clips.kind,
        no_baselines=f"not computed: {scored.clips.no_baselines}",
        baselines=None if scored.clips.train is None else metrics.trivial_baselines(scored.clips.train),
        failures=scored.failures,
        strip=report_page.strips_below(scored.clips.base),
    )
    return report_page.write_report(folder, scored.result, scored.predictions, context)


def _split(scored: Evaluation) -> str:
    """Which clips these are, and whether the model knows their manifest."""
    clips = scored.clips
    if not clips.manifest_sha256:
        return clips.split
    theirs = {r["manifest_sha256"] for r in scored.model.records}
    which = "the manifest" if theirs == {clips.manifest_sha256} else "another manifest than the one"
    return f"{clips.split} ({clips.manifest_sha256[:12]}), {which} that the model was trained on"


def _each(records: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]) -> str:
    """What the members' records have, once if all have the same."""
    values = list(dict.fromkeys(str(value(record)) for record in records))
    return values[0] if len(values) == 1 else f"{', '.join(values)} (by member)"


def summary(scored: Evaluation, page: Path) -> dict[str, Any]:
    """The script's JSON line."""
    result = scored.result
    figures = ("accuracy", "ci95", "n")
    return {
        **{k: result[k] for k in figures},
        "roc_auc": result["roc_auc"],
        "by_dataset": {name: {k: r[k] for k in figures} for name, r in result["by_dataset"].items()},
        "members": [{k: m[k] for k in ("name", "accuracy", "ci95")} for m in result["members"]],
        "generated_samples": scored.generated,
        "clips_trained_on": scored.overlap.same_clip.record()["found"],
        "seen_in_training": scored.overlap.record(),
        "report": str(page),
    }


def log_table(scored: Evaluation, page: Path) -> None:
    """The same as a table for people."""
    result = scored.result
    rows = [(m["name"], m) for m in result["members"]] if len(result["members"]) > 1 else []
    rows += [("all together", result)]
    rows += [(f"  {name}", r) for name, r in result["by_dataset"].items()]
    if scored.generated:
        log.info(
            "GENERATED SAMPLE CLIPS: these figures say that the parts work together, nothing about real videos"
        )
    log.info("%-28s %8s  %-15s %5s  %s", "", "accuracy", "95 % interval", "n", "AUC")
    for name, r in rows:
        low, high = r["ci95"]
        auc = "-" if r["roc_auc"] is None else f"{r['roc_auc']:.3f}"
        interval = f"{100 * low:.1f} - {100 * high:.1f}"
        log.info("%-28s %7.1f%%  %-15s %5d  %s", name, 100 * r["accuracy"], interval, r["n"], auc)
    log.info("report: %s", page)
