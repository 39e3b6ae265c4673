"""The roadmap's final checklist. Each box is filled from the records of the model and the evaluation, never by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from violence_detection.combine import manifest as manifests
from violence_detection.combine.val_ledger import FILE_NAME as LEDGER_NAME
from violence_detection.combine.val_ledger import Looks
from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets import catalogue
from violence_detection.evaluation.training_overlap import Overlap
from violence_detection.models.run_records import RunRecords
from violence_detection.system.figures import percentage
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import pandas as pd

DONE, DIFFERS, MISSING = "done", "differs", "missing"
#: What the roadmap asks for. EPOCHS: at most; VAL_SHARE: share of the clips that are val.
CLIPS, MEMBERS, FOLDS, VARIANTS, EPOCHS, VAL_SHARE = 10_000, 5, 5, 10, 1000, 0.2
#: The accuracy that the roadmap aims at: lowest and highest.
TARGET = (0.93, 0.97)
#: How much of CLIPS may be missing, as a share.
_CLIPS_TOLERANCE = 0.1
#: How far the share of val may be from VAL_SHARE, either way.
_SHARE_TOLERANCE = 0.02
_METRICS = "metrics.json"


@dataclass(frozen=True)
class Box:
    """One box: what is wanted, its state (done, differs, missing), what was found, and where (file and field)."""

    name: str
    wanted: str
    state: str
    found: str
    evidence: str

    def record(self) -> dict[str, str]:
        """The box as metrics.json has it."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What the boxes are filled from.

    `manifest`: rows, train and val, of the manifest whose val was judged; None if other clips were judged. `coverage`:
    how many clips of each class were asked for and judged, as in metrics.json. `looks`: the looks at val before this
    one, None if no clip is known to be val; `val_ledger`: what metrics.json says about them.
    """

    run: RunRecords
    manifest: pd.DataFrame | None
    manifest_sha256: str
    is_val: bool
    sample_label: str
    views: int
    accuracy: float
    ci95: Sequence[float]
    n: int
    coverage: Mapping[str, Mapping[str, Any]]
    overlap: Overlap
    looks: Looks | None
    val_ledger: Mapping[str, Any]

    @property
    def trained_on_manifest(self) -> bool:
        """Whether the model was trained on this manifest."""
        return self.manifest is not None and self.run.values("manifest_sha256") == [self.manifest_sha256]

    @property
    def used(self) -> pd.DataFrame | None:
        """The manifest's rows of the data sets that the model was made with; None if it was made with another manifest.

        All rows if an earlier version trained the model, which did not record the data sets of its clips.
        """
        if self.manifest is None or not self.trained_on_manifest:
            return None
        noted = self.run.clips.dataset
        is_known = len(noted) and (noted != "").all()
        return self.manifest[self.manifest.dataset.isin(set(noted))] if is_known else self.manifest


def fill(facts: Facts) -> list[Box]:
    """Return all boxes, in the roadmap's order."""
    return [
        _clips(facts),
        _datasets(facts),
        _split(facts),
        _augmentation(facts.run),
        _backbone(facts.run),
        _architecture(facts.run),
        _epochs(facts.run),
        _members(facts.run),
        _unseen(facts),
        _folds(facts.run),
        _views(facts),
        _hard_clips(facts.run),
        _looked_at_once(facts),
        _target(facts),
    ]


def _clips(facts: Facts) -> Box:
    name, wanted = "Clips", f"about {CLIPS:,}"
    if facts.used is not None:
        n = len(facts.used)
        enough = n >= CLIPS * (1 - _CLIPS_TOLERANCE)
        sides = facts.used.split.value_counts()
        found = f"{n:,} clips: " + ", ".join(f"{sides.get(s, 0):,} {s}" for s in manifests.SPLITS)
        evidence = f"{_manifest(facts)}: rows of the data sets in {run_folder.CLIPS_NAME}"
        return Box(name, wanted, _state(enough), _with_sample_label(facts, found), evidence)
    n = len(facts.run.clips)
    if not n:
        return Box(name, wanted, MISSING, "not known", f"{run_folder.CLIPS_NAME}: not there")
    found = f"the model was made with {n:,} clips"
    if not facts.run.final_fit:
        found += "; how many val had is not known here"
    enough = n >= CLIPS * (1 - _CLIPS_TOLERANCE)
    state = DONE if enough else DIFFERS if facts.run.final_fit else MISSING
    return Box(name, wanted, state, _with_sample_label(facts, found), f"{run_folder.CLIPS_NAME}: rows")


def _datasets(facts: Facts) -> Box:
    asked = [d.key for d in catalogue.load().values() if d.roadmap]
    name, wanted = "Data sets", f"{len(asked)}: {', '.join(asked)}"
    if facts.used is not None:
        there, evidence = set(facts.used.dataset), f"{_manifest(facts)}, {run_folder.CLIPS_NAME}: dataset"
    else:
        there = set(facts.run.clips.dataset) - {""}
        evidence = f"{run_folder.CLIPS_NAME}: dataset"
    if not there:
        return Box(name, wanted, MISSING, "not known", f"{evidence} is not there")
    lacking = [key for key in asked if key not in there]
    found = f"{len(there)}: {', '.join(sorted(there))}"
    if lacking:
        found += f". Not among them: {', '.join(lacking)}"
    return Box(name, wanted, _state(not lacking), _with_sample_label(facts, found), evidence)


def _split(facts: Facts) -> Box:
    name, wanted = "Split", "80/20, no source on both sides"
    if not facts.trained_on_manifest or facts.manifest is None:
        why = "the judged clips are not those of the manifest that the model was trained on"
        return Box(name, wanted, MISSING, f"not checked: {why}", f"{run_folder.CONFIG_NAME}: manifest_sha256")
    frame = facts.manifest
    share = float((frame.split == "val").mean())
    both = int((frame.groupby("source_group").split.nunique() > 1).sum())
    found = (
        f"{100 * (1 - share):.1f}/{100 * share:.1f}, {both:,} of {frame.source_group.nunique():,} sources "
    )
    found += "on both sides"
    is_so = both == 0 and abs(share - VAL_SHARE) <= _SHARE_TOLERANCE
    return Box(name, wanted, _state(is_so), found, f"{_manifest(facts)}: split, source_group")


def _augmentation(run: RunRecords) -> Box:
    found = run.values("augment")
    return _compared("Augmentation", f"{VARIANTS} variants of each train clip", run, found == [VARIANTS],
                     f"{_listed(found)}, the plain clip among them", "augment")  # fmt: skip


def _backbone(run: RunRecords) -> Box:
    names = run.values("features", "backbone")
    found = f"{_listed(names)}; streams {run.streams}"
    return _compared(
        "Backbone", "efficientnet_b4", run, names == [["efficientnet_b4"]], found, "features.backbone"
    )


def _architecture(run: RunRecords) -> Box:
    heads = run.values("architecture")
    is_so = "bilstm_attention" in heads or {"bilstm", "attention"} <= set(map(str, heads))
    found = _listed(heads)
    if is_so and "bilstm_attention" not in heads:
        found += "; two members, one with each"
    return _compared("Architecture", "BiLSTM and attention", run, is_so, found, "architecture")


def _epochs(run: RunRecords) -> Box:
    others = [m.name for m in run.members if not m.in_epochs]
    asked = run.values("train", "epochs", of=[m for m in run.members if m.in_epochs])
    ran = run.epochs_ran
    found = [f"at most {_listed(asked)}", f"{_range(ran)} ran" if ran else "how many ran is not noted"]
    found = found if asked else []
    found += [f"without epochs, at once or in a fixed number of steps: {_named(others)}"] if others else []
    evidence = f"train.epochs; {run_folder.RESULT_NAME}: epochs_run"
    return _compared("Epochs", f"at most {EPOCHS:,}", run, asked == [EPOCHS] and bool(ran),
                     "; ".join(found), evidence)  # fmt: skip


def _members(run: RunRecords) -> Box:
    names = [m.name for m in run.members]
    file = run_folder.ENSEMBLE_NAME if run.is_ensemble else run_folder.CONFIG_NAME
    return Box(
        "Ensemble",
        f"{MEMBERS} members",
        _state(len(names) == MEMBERS),
        f"{len(names)}: {_named(names)}",
        file,
    )


def _unseen(facts: Facts) -> Box:
    name, wanted = "Unseen data", "no judged clip, source or copy was trained on"
    evidence = f"{_METRICS}: seen_in_training, of {run_folder.CLIPS_NAME}"
    found = "; ".join(f"{what.lower()}: {said}" for what, said in facts.overlap.lines())
    overlap = facts.overlap
    if overlap.touched:
        return Box(
            name, wanted, DIFFERS, f"{overlap.touched} of {overlap.clips} clips were. {found}", evidence
        )
    return Box(name, wanted, DONE if _wholly_compared(overlap) else MISSING, found, evidence)


def _wholly_compared(overlap: Overlap) -> bool:
    """Whether every judged clip was compared with the training clips in all three ways."""
    ways = (overlap.same_clip, overlap.same_source, overlap.near_copy)
    return all(way.compared and not way.why_not for way in ways)


def _folds(run: RunRecords) -> Box:
    name, wanted = "Cross-validation", f"{FOLDS} folds by source"
    if not run.cross_validation:
        return Box(name, wanted, MISSING, run.no_cross_validation, run_folder.FOLDS_RECORD_NAME)
    record = run.cross_validation
    folds = len(record["folds"])
    evidence = f"{run_folder.FOLDS_RECORD_NAME}: folds, cv_accuracy"
    if run.final_fit:
        evidence = f"{run_folder.ENSEMBLE_NAME}: {run_folder.FINAL_KEY}"
    if run.folds_are_data_sets:
        return Box(name, wanted, DIFFERS, run.folds_in_words, evidence)
    accuracy, ci95 = record.get("cv_accuracy"), record.get("cv_accuracy_ci95")
    found = f"{folds} folds"
    if isinstance(accuracy, float) and isinstance(ci95, list) and len(ci95) == 2:
        found += f": {percentage(accuracy)} % of {record.get('cv_n')} clips from {record.get('cv_n_groups')} sources "
        found += f"(95 % interval {_percent(ci95)})"
    return Box(name, wanted, _state(folds == FOLDS), found, evidence)


def _views(facts: Facts) -> Box:
    many = facts.views > 1
    found = f"{facts.views} views averaged" if many else "the plain clip alone; --tta N averages views"
    return Box("TTA", "views of each clip averaged", DONE if many else MISSING, found, f"{_METRICS}: model")


def _hard_clips(run: RunRecords) -> Box:
    name, wanted = "Hard clips", "members fine-tuned on what is misjudged"
    evidence = f"{run_folder.CLIPS_NAME}: role mined; {run_folder.ENSEMBLE_NAME}"
    if run.mined and not run.tuned:
        found = (
            "clips were mined out of fold, but no member was better after tuning on them: all are as before"
        )
        return Box(name, wanted, DIFFERS, found, evidence)
    if run.mined:
        kept = f"{len(run.tuned)} of {len(run.members)} members are tuned ones"
        found = f"clips were mined out of fold; {kept}, the others had a lower selection loss before tuning"
        if len(run.tuned) == len(run.members):
            found = f"clips were mined out of fold; all {len(run.members)} members are tuned ones"
        return Box(name, wanted, DONE, found, evidence)
    if run.tuned_beside:
        found = f"done beside, in {run_folder.TUNED_FOLDER}/: not the ensemble judged here"
        return Box(name, wanted, DIFFERS, found, f"{run_folder.TUNED_FOLDER}/{run_folder.ENSEMBLE_NAME}")
    return Box(name, wanted, MISSING, "no record of it; train_ensemble_models.py --fine-tune-hard", evidence)


def _looked_at_once(facts: Facts) -> Box:
    name, wanted = "Val looked at once", "no look before this one"
    if facts.looks is None:
        return Box(name, wanted, MISSING, facts.val_ledger["text"], LEDGER_NAME)
    looks = facts.looks
    before = len(looks.same) + looks.other + looks.unreadable
    state = DIFFERS if before else MISSING if looks.unnoted else DONE
    return Box(name, wanted, state, facts.val_ledger["text"], f"{LEDGER_NAME}: lines")


def _target(facts: Facts) -> Box:
    name, wanted = "Accuracy", f"{100 * TARGET[0]:.0f}-{100 * TARGET[1]:.0f} % on unseen clips"
    found = f"{percentage(facts.accuracy)} % of {facts.n} clips (95 % interval {_percent(facts.ci95)})"
    evidence = f"{_METRICS}: accuracy, ci95, n, coverage"
    if facts.sample_label:
        return Box(name, wanted, MISSING, f"not known: {facts.sample_label}. {found}", evidence)
    if not facts.is_val or facts.overlap.touched:
        why = "clips that were seen in training" if facts.overlap.touched else "not the val of the manifest"
        return Box(name, wanted, MISSING, f"not known: these are {why}. {found}", evidence)
    if not _wholly_compared(facts.overlap):
        why = "whether training had these clips was not fully checked"
        return Box(name, wanted, MISSING, f"not known: {why}. {found}", evidence)
    if none := [name for name in CLASS_NAMES if not facts.coverage[name]["predicted"]]:
        why = f"no {' and no '.join(none)} clip could be judged, so it is the accuracy of one class"
        return Box(name, wanted, MISSING, f"not known: {why}. {found}{_not_judged(facts)}", evidence)
    found += _not_judged(facts)
    if facts.accuracy >= TARGET[0] and facts.ci95[0] < TARGET[0]:
        found += f"; the interval does not rule out less than {100 * TARGET[0]:.0f} %"
    return Box(name, wanted, _state(facts.ci95[0] >= TARGET[0]), found, evidence)


def _not_judged(facts: Facts) -> str:
    """How many clips of each class could not be judged, to be appended to what was found; empty if all were."""
    lost = {name: part["n"] - part["predicted"] for name, part in facts.coverage.items()}
    said = [f"{n} of {facts.coverage[name]['n']} {name} clips" for name, n in lost.items() if n]
    return f"; {' and '.join(said)} could not be judged" if said else ""


def _compared(name: str, wanted: str, run: RunRecords, is_so: bool, found: str, field: str) -> Box:
    """A box that is filled from the members' config.json; missing if no member has one."""
    evidence = f"{run_folder.CONFIG_NAME}: {field}"
    if not any(m.config for m in run.members):
        return Box(name, wanted, MISSING, "not known", f"{run_folder.CONFIG_NAME}: not there")
    return Box(name, wanted, _state(is_so), found, evidence)


def _state(is_so: bool) -> str:
    return DONE if is_so else DIFFERS


def _with_sample_label(facts: Facts, found: str) -> str:
    return f"{found} ({facts.sample_label})" if facts.sample_label else found


def _manifest(facts: Facts) -> str:
    return f"{manifests.FILE_NAME} {facts.manifest_sha256[:12]}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join("+".join(map(str, v)) if isinstance(v, list) else str(v) for v in values)


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"


def _percent(interval: Sequence[float]) -> str:
    return "-".join(map(percentage, interval))
