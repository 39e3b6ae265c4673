"""Measure a trained model on the val clips: probabilities per clip and member, figures, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.errors import UserError
from violence_detection.evaluation import clip_set, metrics, own_data
from violence_detection.evaluation.clip_set import ClipSet
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.features import extract
from violence_detection.features.config import ExtractConfig
from violence_detection.models import shipped, trained_model
from violence_detection.training import run_folder, training_data
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
    fights = samples.labels == 1
    correct = (model.average(by_member) >= model.threshold) == fights
    return QuickScore(
        round(float(correct.mean()), 4),
        _rounded(metrics.accuracy_interval(correct, samples.rows.source_group.to_numpy())),
        {name: round(float(((p >= model.threshold) == fights).mean()), 4) for name, p in by_member.items()},
    )


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    return round(interval[0], 4), round(interval[1], 4)


@dataclass(frozen=True)
class Evaluation:
    """Everything a report needs. `predictions` has NaN where a clip could not be read."""

    predictions: pd.DataFrame
    clips: ClipSet
    views: int
    model: trained_model.TrainedModel
    result: dict[str, Any]
    failures: list[dict[str, str]]
    trained_on: int

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
    overlap = trained_on(model, clips.rows.clip_id.tolist())
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
    if overlap:
        log.warning(
            "%d of the %d clips were trained on: this is no accuracy on unseen clips",
            overlap,
            len(clips.rows),
        )
    return Evaluation(
        predictions,
        clips,
        config.tta,
        model,
        metrics.figures(predictions, model.threshold),
        [*clips.failures, *extraction.failures],
        overlap,
    )


def predict_rows(model: trained_model.TrainedModel, rows: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """Rows of the manifest with p_<member> and p_violent, averaged over views; NaN for clips without features."""
    import pandas as pd

    by_member = model.average_views(samples.inputs)
    columns = {f"p_{name}": p for name, p in by_member.items()} | {"p_violent": model.average(by_member)}
    scored = pd.DataFrame(columns).assign(clip_id=samples.rows.clip_id)
    kept = ["clip_id", "path", "source_path", "dataset", "source_group", "label"]
    return rows[kept].merge(scored, on="clip_id", how="left")


def trained_on(model: trained_model.TrainedModel, clip_ids: Sequence[str]) -> int:
    """How many of the clips any member of the model was trained on."""
    seen = frozenset[str]().union(*(run_folder.trained_clips(folder) for folder in model.folders))
    return sum(clip_id in seen for clip_id in clip_ids)


def report(scored: Evaluation, folder: Path, command: str) -> Path:
    """Write metrics.json, predictions.csv, plots and index.html; returns the page's path."""
    from violence_detection.evaluation.report import report as report_page

    record = scored.model.record
    context = report_page.ReportContext(
        command=command,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        model=[
            ("members", ", ".join(m.name for m in scored.model.members)),
            ("backbone", ", ".join(scored.model.features.backbone)),
            ("streams", ", ".join(scored.model.features.streams)),
            ("frames a clip", str(scored.model.features.frames)),
            ("variants a training clip", str(record["augment"])),
            ("views averaged here", str(scored.views)),
            ("clips trained on", str(record["clips"]["train"])),
            ("clips that chose the epoch (selection; papers: validation)", str(record["clips"]["selection"])),
            ("manifest it was trained on", record["manifest_sha256"][:12]),
            ("version", record["version"]),
        ],
        seeds=[record["train"]["seed"]],
        generated=scored.generated,
        trained_on=scored.trained_on,
        split=scored.clips.held_apart,
        data=scored.clips.kind,
        baselines=None if scored.clips.train is None else metrics.trivial_baselines(scored.clips.train),
        failures=scored.failures,
        strip=report_page.strips_below(scored.clips.base),
    )
    return report_page.write_report(folder, scored.result, scored.predictions, context)


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
        "clips_trained_on": scored.trained_on,
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
