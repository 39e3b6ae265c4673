"""Measure what each ingredient of the roadmap is worth, by judging the same clips with every stage.

    python benchmarks/progression.py --data-root DATA --output progression

DATA/combined_all is made by combine_all_datasets.py. For each seed, the clips of train and val together are divided
into five parts by source; one part is held out and judged by every stage:
    baseline     one LSTM, plain clips
    ultra        a wider LSTM, 5 variants of each clip
    ultimate     a BiLSTM with attention, 10 variants
    + motion     the same, with the motion stream in addition to rgb
    (members)    each of the five members of the ensemble, both streams, 10 variants
    ensemble     the average of the members
    + TTA        the ensemble, averaged over views of each clip
    + hard       the members fine-tuned on hard clips, which are found out of fold among the train clips; with TTA
    + folds      the average of the members that were trained in the folds to find hard clips; with TTA
Heads, units, streams and variants are those of the presets; the backbone and all other settings are the same in all
stages. So ultra differs from baseline in units and variants, ultimate from ultra in head, units and variants, and every
later stage from the one that it is compared with in one thing.

Writes <output>/predictions.csv (a row per clip, seed and stage) and table.md, and prints one JSON line. The interval of
a gain is by source. After it was killed, the same command continues where it stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from violence_detection import CLASS_NAMES, cli
from violence_detection.combine import manifest, val_ledger
from violence_detection.ensemble import cross_validation, earlier_folds, ensemble, folds, hard, member_jobs
from violence_detection.ensemble import pool as pools
from violence_detection.ensemble.config import MEMBERS, EnsembleConfig
from violence_detection.ensemble.cross_validation import CrossValidation
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.pool import Pool
from violence_detection.evaluation import measure, metrics, paired
from violence_detection.features import extract, key
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.models import trained_model
from violence_detection.system import storage
from violence_detection.system.console import log
from violence_detection.training import training_data
from violence_detection.training.config import PRESETS, HeadConfig, TrainConfig
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

OUTER_FOLDS = 5
#: For each stage, the stage that its gain is measured against.
COMPARED = {
    "baseline": None,
    "ultra": "baseline",
    "ultimate": "ultra",
    "+ motion": "ultimate",
    **dict.fromkeys(MEMBERS, "+ motion"),
    "ensemble": "+ motion",
    "+ TTA": "ensemble",
    "+ hard": "+ TTA",
    "+ folds": "+ TTA",
}
#: The preset and the streams of each stage that is a single model, except for the members.
_SINGLE = {
    "baseline": ("baseline", ("rgb",)),
    "ultra": ("ultra", ("rgb",)),
    "ultimate": ("ultimate", ("rgb",)),
    "+ motion": ("ultimate", ("rgb", "motion")),
}
_FOLDER = {"+ motion": "motion"}


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("progression"),
        help="folder for models and results (default: progression)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="divisions by source, each with other initial weights (default: 3)",
    )
    parser.add_argument(
        "--views", type=int, default=4, help="views for TTA, the plain clip included (default: 4)"
    )
    parser.add_argument(
        "--inner-folds",
        type=int,
        default=3,
        help="folds that find hard clips and are the stage + folds (default: 3)",
    )
    parser.add_argument("--parallel", type=int, default=2, help="models trained at once (default: 2)")
    cli.add_config(parser, FeatureConfig, skip=("streams",), defaults={"backbone": ("efficientnet_lite0",)})
    cli.add_config(parser, ExtractConfig, skip=("augment", "features_only", "preview", "prune"))
    cli.add_config(
        parser,
        TrainConfig,
        skip=("seed", "devices"),
        defaults={"batch_size": 64, "epochs": 20, "schedule_epochs": 20},
    )
    cli.add_config(parser, HeadConfig, skip=("units",))
    args = cli.parse(parser)
    member_jobs.fix_threads()
    config, where = cli.build(FeatureConfig, args), cli.build(ExtractConfig, args)
    wide = open_pool(config, where)
    runs = [
        Seed(seed, wide, _settings(args, seed), args.output / f"seed_{seed}", args.inner_folds, args.views)
        for seed in range(args.seeds)
    ]
    extract_views(runs, config, where)
    jobs = [job for run in runs for job in run.jobs()]
    member_jobs.run(jobs, at_once=args.parallel)
    predictions = _concat(run.predictions(args.parallel) for run in runs)
    stages = {name: figures(predictions, name) for name in COMPARED}
    note_look(where.data_root / "combined_all", runs, stages["ensemble"])
    with storage.atomic_path(args.output / "predictions.csv") as temporary:
        quoting = storage.quoting_of(predictions)
        predictions.to_csv(temporary, index=False, errors=storage.NAME_ERRORS, quoting=quoting)
    storage.write_text(args.output / "table.md", table(stages))
    log.info("\n%s", table(stages))
    cli.print_summary(
        {
            "stages": stages,
            "n": int(predictions.clip_id.nunique()),
            "n_groups": int(predictions.source_group.nunique()),
            "seeds": args.seeds,
            "backbone": ",".join(args.backbone),
            "predictions": str(args.output / "predictions.csv"),
        }
    )
    return cli.exit_code(wide.failures)


def open_pool(config: FeatureConfig, where: ExtractConfig) -> Pool:
    """Open all clips as one train part, with the variants for training in the cache."""
    where = replace(where, augment=_variants("ultimate"))
    names = set(manifest.read(where.data_root / "combined_all").dataset)
    choice = pools.Choice(names, all_clips=True)
    return pools.open_pool(replace(config, streams=("rgb", "motion")), where, choice)


def extract_views(runs: Sequence[Seed], config: FeatureConfig, where: ExtractConfig) -> None:
    """Make sure that the cache has the views of the held-out clips."""
    for run in runs:
        rows = run.pool.rows(run.fold.held_out)
        names = augment.variant_names(augment.VIEW, run.views)
        clips = extract.clips_of(rows, where.data_root / "combined_all", names)
        extract.ensure(clips, replace(config, streams=("rgb", "motion")), where)


def note_look(combined: Path, runs: Sequence[Seed], ensemble_figures: dict[str, Any]) -> None:
    """Record in val's ledger that its clips were judged, together with those of train, before the result is shown."""
    judged = {clip_id for run in runs for clip_id in run.fold.held_out} & set(val_ledger.val_of(combined))
    seen = {
        "accuracy": ensemble_figures["accuracy"],
        "ci95": ensemble_figures["ci95"],
        "n": ensemble_figures["judgements"],
    }
    folders = [run.folder for run in runs]
    measure.note_look(combined, "progression", cli.command(None), folders, len(judged), seen)


def _settings(args: Any, seed: int) -> Settings:
    return Settings(
        replace(cli.build(FeatureConfig, args), streams=("rgb", "motion")),
        _variants("ultimate"),
        cli.build(HeadConfig, args),
        replace(cli.build(TrainConfig, args), seed=seed, devices=1),
    )


def _variants(preset: str) -> int:
    return int(PRESETS[preset].values["augment"])


@dataclass(frozen=True)
class Seed:
    """All stages of one seed."""

    seed: int
    pool: Pool
    settings: Settings
    folder: Path
    inner_folds: int
    views: int

    @cached_property
    def fold(self) -> Fold:
        target = frozenset(self.pool.frame.dataset)
        fraction = self.settings.train.selection_fraction
        return folds.cross_validation(self.pool.frame, target, OUTER_FOLDS, fraction, self.seed)[0]

    @cached_property
    def inner(self) -> CrossValidation:
        """The folds of the clips that are not held out."""
        frame = self.pool.frame
        rest = replace(self.pool, frame=frame[~frame.clip_id.isin(self.fold.held_out)])
        target = frozenset(frame.dataset)
        fraction = self.settings.train.selection_fraction
        folds_ = folds.cross_validation(rest.frame, target, self.inner_folds, fraction, self.seed)
        return CrossValidation(MEMBERS, tuple(folds_), rest, self.settings, self.folder / "inner")

    def jobs(self) -> list[TrainingJob]:
        """Make the jobs of all models except the fine-tuned ones, which need the others first."""
        singles = [self._single(name) for name in _SINGLE]
        members = ensemble.jobs(MEMBERS, self.pool, self.fold, self.settings, self.folder, overwrite=False)
        return [*singles, *members, *self.inner.jobs()]

    def _single(self, name: str) -> TrainingJob:
        preset, streams = _SINGLE[name]
        variants = _variants(preset)
        settings = replace(
            self.settings,
            features=replace(self.settings.features, streams=streams),
            augment=variants,
            head=replace(self.settings.head, units=PRESETS[preset].values.get("units", HeadConfig.units)),
        )
        pool = replace(_with_streams(self.pool, settings.features), variants=self.pool.variants[:variants])
        return TrainingJob(
            PRESETS[preset].architecture, self.folder / _FOLDER.get(name, name), pool, self.fold, settings
        )

    def predictions(self, at_once: int) -> pd.DataFrame:
        """Judge the held-out clips with every stage, after fine-tuning the ensemble; return P(fight) per clip."""
        log.info(
            "seed %d: %d train clips, %d selection clips, %d clips of %d sources held out", self.seed,
            len(self.fold.train), len(self.fold.selection), len(self.fold.held_out),
            self.pool.rows(self.fold.held_out).source_group.nunique(),
        )  # fmt: skip
        trained = member_jobs.run(self.jobs())
        members = [member_jobs.finished(job) for job in ensemble.jobs(
            MEMBERS, self.pool, self.fold, self.settings, self.folder, overwrite=False)]  # fmt: skip
        parts = [ensemble.Part.of(n, t) for n, t in zip(MEMBERS, members, strict=True) if t]
        ensemble.write(self.folder, parts, self.pool.plain(self.fold.selection), self.seed)
        cross_validation.finish(self.inner, trained[-len(self.inner.jobs()) :])
        oof = earlier_folds.out_of_fold(self.inner.folder, lambda *_: self.inner)
        assert oof is not None  # written by the call above
        hard.fine_tune(
            EnsembleConfig(), self.pool, self.fold, self.settings, oof, self.folder,
            lambda jobs, before: member_jobs.run(jobs, at_once=at_once, before=before), overwrite=False,
        )  # fmt: skip
        views = self.pool.views(self.fold.held_out, self.views)
        p: dict[str, np.ndarray] = {}
        for name in _SINGLE:
            job = self._single(name)
            p |= {name: _average(job.folder, job.pool.plain(self.fold.held_out))}
        plain = trained_model.load(self.folder)
        by_member = plain.predict(views.plain())
        p |= {**by_member, "ensemble": plain.average(by_member), "+ TTA": _average(self.folder, views)}
        p |= {"+ hard": _average(self.folder / hard.FOLDER, views)}
        p |= {"+ folds": _average(self.inner.folder / "folds", views)}
        rows = views.rows[["clip_id", "dataset", "source_group", "label"]]
        return _concat(rows.assign(seed=self.seed, stage=name, p_violent=p[name]) for name in COMPARED)


def _with_streams(pool: Pool, config: FeatureConfig) -> Pool:
    """The pool with only the inputs of the configured streams."""
    names = {key.input_name(b, s) for b in config.backbone for s in key.for_backbone(config, b).streams}
    return replace(
        pool,
        stores={n: s for n, s in pool.stores.items() if n in names},
        records={n: r for n, r in pool.records.items() if n in names},
    )


def _average(model: Path, samples: training_data.Samples) -> np.ndarray:
    """P(fight), (n,), of a model, averaged over its members and the views of each clip."""
    loaded = trained_model.load(model)
    inputs = {name: np.asarray(v[:]) for name, v in samples.inputs.items()}
    return loaded.average(loaded.average_views(inputs))


def figures(predictions: pd.DataFrame, stage: str) -> dict[str, Any]:
    """The figures of a stage over all seeds: accuracy, also by seed, and the gain over the stage in COMPARED."""
    from sklearn.metrics import roc_auc_score

    rows = predictions[predictions.stage == stage]
    right, fights = _right(rows), (rows.label == CLASS_NAMES[1]).to_numpy()
    groups = rows.source_group.to_numpy()
    by_seed = [float(right[rows.seed == seed].mean()) for seed in rows.seed.unique()]
    out: dict[str, Any] = {
        "accuracy": round(float(right.mean()), 4),
        "ci95": _rounded(metrics.accuracy_interval(right, groups)),
        "by_seed": [round(a, 4) for a in by_seed],
        "roc_auc": round(float(roc_auc_score(fights, rows.p_violent)), 4),
        "by_dataset": {
            name: round(float(right[rows.dataset == name].mean()), 4)
            for name in sorted(rows.dataset.unique())
        },
        "judgements": len(rows),
    }
    if (other := COMPARED[stage]) is not None:
        gain = right.astype(float) - _right(predictions[predictions.stage == other])
        interval = paired.interval(gain, groups)
        out |= {
            "compared_with": other, "gain": round(float(gain.mean()), 4), "gain_ci95": interval and _rounded(interval)
        }  # fmt: skip
    return out


def _right(rows: pd.DataFrame) -> np.ndarray:
    """Which clips are judged right, (n,) bool, in the order of `rows`, which is the same for every stage."""
    return ((rows.p_violent >= trained_model.DEFAULT_THRESHOLD) == (rows.label == CLASS_NAMES[1])).to_numpy()


def table(stages: dict[str, dict[str, Any]]) -> str:
    """The stages as a Markdown table."""
    lines = [
        "| stage | accuracy % (95 %) | by seed | AUC | gain in points (95 %) | over |",
        "|---|---|---|---|---|---|",
    ]
    for name, f in stages.items():
        seeds = " ".join(f"{100 * a:.1f}" for a in f["by_seed"])
        gain, over = "", ""
        if "gain" in f:
            gain, over = f"{100 * f['gain']:+.1f}", f["compared_with"]
            if f["gain_ci95"]:
                gain += " ({:+.1f} to {:+.1f})".format(*(100 * x for x in f["gain_ci95"]))
        low, high = (100 * x for x in f["ci95"])
        lines.append(
            f"| {name} | {100 * f['accuracy']:.1f} ({low:.1f}-{high:.1f}) | {seeds} | {f['roc_auc']:.3f} | "
            f"{gain} | {over} |"
        )
    return "\n".join(lines) + "\n"


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(x, 4) for x in interval]


def _concat(frames: Iterator[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(list(frames), ignore_index=True)


if __name__ == "__main__":
    cli.run_main(main)
