"""Check what a run of train_ensemble_models.py is asked for, and choose its clips, before anything starts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from violence_detection.combine import manifest
from violence_detection.ensemble import ensemble, folds, hard
from violence_detection.ensemble import pool as pools
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.pool import Choice
from violence_detection.errors import UserError
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.models import shipping
from violence_detection.system import settings
from violence_detection.training import fine_tuning, heads, run_folder, trainer, training_data
from violence_detection.training.config import (
    KERNEL,
    PICTURES_OF,
    HeadConfig,
    TrainConfig,
    check_patience,
    settings_of,
    takes,
)
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

#: Settings of which each member takes only some.
Taken = TypeVar("Taken", HeadConfig, TrainConfig)

#: Settings that do nothing without another one -> the one that each needs.
_ONLY_WITH = {
    "hard_below": "fine_tune_hard",
    "hard_share": "fine_tune_hard",
    "hard_learning_rate": "fine_tune_hard",
    "hard_epochs": "fine_tune_hard",
    "early_exit_below": "early_exit",
    "add_datasets": "datasets",
}
#: Number of folds made to find hard clips or for a final fit, if there are none and --cross-validate gives no number.
FOLDS = 5


def check_all(
    config: EnsembleConfig,
    how: ExtractConfig,
    features: FeatureConfig,
    head: HeadConfig,
    train: TrainConfig,
    output: Path,
) -> list[tuple[Path, TrainConfig]]:
    """Check all settings and the manifest; return the folders of the ensembles to train, each with how it is trained.

    The folders do not include those of folds made only to find hard clips. `output`: may have folds of an earlier run.
    Raises UserError for settings and data that cannot work.
    """
    check_heads(config, head, train)
    if how.ray is not None and config.parallel != 1:
        raise UserError(
            "--parallel would do nothing: --ray trains the models on the cluster. Leave out one of the two"
        )
    _check_looked_at(config.members, features.backbone)
    training_data.check(features, how)
    return _check_parts(config, how, choose(config, how), train, output)


def check_heads(config: EnsembleConfig, head: HeadConfig, train: TrainConfig) -> None:
    """Raise UserError for members, or settings of their heads, that cannot work; needs no data."""
    check(config)
    _check_taken(config.members, head, HeadConfig(), head.used_fields)
    _check_taken(config.members, train, TrainConfig(), settings_of)
    check_patience(train)
    if train.seed + config.seeds - 1 > settings.MOST_SEED:
        raise UserError(
            f"--seeds {config.seeds} takes the seeds from --seed {train.seed} on, but the highest seed is "
            f"{settings.MOST_SEED}. Use a lower --seed"
        )
    if set(config.members) & set(PICTURES_OF):
        # raises UserError if --accumulate cannot divide its batch
        fine_tuning.train_config(head, train)


def _check_taken(
    members: Sequence[str], given: Taken, plain: Taken, taken_by: Callable[[str], Collection[str]]
) -> None:
    """Raise UserError for a setting that differs from `plain`, the defaults, but that none of the members takes."""
    taken = {name for member in members for name in taken_by(member)}
    for field in dataclasses.fields(given):
        if field.name not in taken and getattr(given, field.name) != getattr(plain, field.name):
            takers = [name for name in heads.ARCHITECTURES if field.name in taken_by(name)]
            raise UserError(
                f"{settings.flag_of(field)}: none of --members {','.join(members)} takes it. Leave it out, or "
                f"add one of {', '.join(takers)}"
            )


def _check_looked_at(members: Sequence[str], backbones: Sequence[str]) -> None:
    """Raise UserError for a member that takes none of the backbones, or a backbone that none of the members takes."""
    for name in members:
        if not any(takes(name, b) for b in backbones):
            wanted = PICTURES_OF.get(name, "a backbone that gives features, such as i3d_steady")
            raise UserError(
                f"--members {name}: this member takes none of --backbone {','.join(backbones)}. Add {wanted}"
            )
    for backbone in backbones:
        if not any(takes(name, backbone) for name in members):
            for_it = ", ".join(name for name in heads.ARCHITECTURES if takes(name, backbone))
            raise UserError(
                f"--backbone {backbone}: none of --members {','.join(members)} takes it. Leave it out, or add one of "
                f"{for_it} to --members"
            )


def _check_parts(
    config: EnsembleConfig, how: ExtractConfig, choice: Choice, train: TrainConfig, output: Path
) -> list[tuple[Path, TrainConfig]]:
    """See `check_all`. Raises UserError if a part would lack a class: here, not only after hours of extraction."""
    frame, target = choice.rows(how.data_root / "combined_all"), frozenset(choice.target)
    found: list[tuple[Path, TrainConfig]] = []
    if not config.spends_val and not config.leave_one_dataset_out:
        folds.official(frame, target, train.selection_fraction, train.seed)
        found.append((output, train))
    if config.cross_validate:
        cut = folds.cross_validation(
            frame, target, config.cross_validate, train.selection_fraction, train.seed
        )
        found += [(output / fold.name, train) for fold in cut]
    elif flag := _makes_folds(config):
        cut = _cut_folds(flag, folds_there(output), frame, target, train)
        # folds made to find hard clips have a folder of their own
        if config.final:
            found += [(output / fold.name, train) for fold in cut]
    if config.leave_one_dataset_out:
        cut = folds.leave_one_dataset_out(frame, target, train.selection_fraction, train.seed)
        found += [(folder / fold.name, own) for folder, own in by_seed(config, train, output) for fold in cut]
    if config.fine_tune_hard:
        found.append((output / hard.FOLDER, hard.train_config(train, config)))
    if config.final:
        found.append((output / run_folder.FINAL_FOLDER, train))
    return found


def by_seed(config: EnsembleConfig, train: TrainConfig, output: Path) -> list[tuple[Path, TrainConfig]]:
    """For each seed of --leave-one-dataset-out: the folder of its models, and how they are trained."""
    seeded = [dataclasses.replace(train, seed=train.seed + i) for i in range(config.seeds)]
    return [(output / f"seed_{own.seed}", own) for own in seeded]


def check_folders(
    folders: Sequence[tuple[Path, TrainConfig]],
    config: EnsembleConfig,
    how: ExtractConfig,
    features: FeatureConfig,
    head: HeadConfig,
) -> None:
    """Raise UserError if a member's folder has a model with other settings, or a damaged one.

    `folders`: see `check_all`.
    """
    for (folder, train), name in itertools.product(folders, config.members):
        own = ensemble.features_of(name, features)
        trainer.check_folder(folder / name, trainer.settings_record(name, own, how.augment, head, train))


def _makes_folds(config: EnsembleConfig) -> str:
    """The flag that needs folds, an earlier run's or new ones, even without --cross-validate; empty if none does."""
    if config.final and not config.by_left_out:
        return "--final"
    return "--fine-tune-hard" if config.fine_tune_hard else ""


def _cut_folds(
    flag: str, k: int, frame: pd.DataFrame, target: Collection[str], train: TrainConfig
) -> list[Fold]:
    """The k folds that `flag` needs. Raises UserError if the clips cannot be cut into them."""
    try:
        return folds.cross_validation(frame, target, k, train.selection_fraction, train.seed)
    except UserError as e:
        raise UserError(
            f"{flag} needs {k} folds, unless --cross-validate gives another number, and these clips cannot be cut into "
            f"them. {e}"
        ) from e


def folds_there(output: Path) -> int:
    """The number of folds that an earlier run made or began in `output`; FOLDS if it did neither.

    Raises UserError if its record is damaged.
    """
    path, begun = output / run_folder.FOLDS_RECORD_NAME, output / run_folder.FOLDS_BEGUN_NAME
    if path.is_file():
        folds_ = run_folder.read_object(path).get("folds")
        if not isinstance(folds_, list) or len(folds_) < 2:
            raise run_folder.damaged(path, "it does not list at least two folds")
        return len(folds_)
    if not begun.is_file():
        return FOLDS
    k = run_folder.read_object(begun).get("folds")
    if not run_folder.is_count(k) or k < 2:
        raise run_folder.damaged(begun, "its number of folds is missing or below 2")
    return k


def choose(config: EnsembleConfig, how: ExtractConfig) -> Choice:
    """Which clips of the manifest are used. Raises UserError for settings that cannot work."""
    check(config)
    frame = manifest.read(how.data_root / "combined_all")
    target, added = pools.datasets(frame, config.datasets, config.add_datasets)
    return Choice(target, added, config.spends_val, config.tta, config.closer_look)


def wanted_clips(config: EnsembleConfig, how: ExtractConfig) -> list[WantedClip]:
    """The clips that a run with these settings needs, with their variants and views."""
    choice, combined = choose(config, how), how.data_root / "combined_all"
    return choice.clips(choice.rows(combined), combined, augment.variant_names("v", how.augment))


def check(config: EnsembleConfig) -> None:
    """Raise UserError for settings that cannot work together or would do nothing; needs no data."""
    if not config.members or len(set(config.members)) != len(config.members):
        raise UserError(
            f"--members needs at least one name, each once. Received: {','.join(config.members)!r}"
        )
    if unknown := sorted(set(config.members) - set(heads.ARCHITECTURES)):
        raise UserError(
            f"--members: unknown architecture {unknown[0]!r}. There are: {', '.join(heads.ARCHITECTURES)}"
        )
    if config.average != EnsembleConfig.average and len(config.members) == 1:
        raise UserError(
            f"--average {config.average} would do nothing: --members has only {config.members[0]}. Leave it out"
        )
    if config.cross_validate == 1:
        raise UserError("--cross-validate: the number of folds must be at least 2")
    spread = config.cross_validate or config.leave_one_dataset_out or config.final
    if config.all_clips and not spread:
        raise UserError(
            "--all-clips: val is then spent, and the usual ensemble is not trained. Add --cross-validate K, "
            "--leave-one-dataset-out or --final"
        )
    if (config.spends_val or config.leave_one_dataset_out) and config.show_val:
        raise UserError(
            "--show-val: with --all-clips, --final or --leave-one-dataset-out there is no ensemble to measure on val. "
            "Leave it out"
        )
    if (config.spends_val or config.leave_one_dataset_out) and config.fine_tune_hard:
        raise UserError(
            "--fine-tune-hard: with --all-clips, --final or --leave-one-dataset-out there is no ensemble to fine-tune. "
            "Leave it out"
        )
    if config.fine_tune_hard and (whole := sorted(set(config.members) & set(PICTURES_OF))):
        raise UserError(
            f"--fine-tune-hard is for heads on features only. Leave it out, or remove {whole[0]} from --members"
        )
    _check_only_with(config)
    _check_hard(config)
    _check_early_exit(config)
    _check_closer_look(config)
    if config.by_left_out and not (config.final and config.leave_one_dataset_out):
        raise UserError("--final-by left-out needs --final and --leave-one-dataset-out")
    if config.ship is not None:
        if not config.final:
            raise UserError("--ship: only a final fit can be shipped. Add --final")
        shipping.check(config.ship)
    if config.seeds > 1 and not config.leave_one_dataset_out:
        raise UserError("--seeds goes with --leave-one-dataset-out. Add that, or leave out --seeds")
    if config.tta > 1 and not spread:
        raise UserError(
            "--tta goes with --cross-validate K, --leave-one-dataset-out or --final. Add one of them, or leave it out; "
            "to average views of val, use --tta of test_ensemble.py"
        )


def _check_only_with(config: EnsembleConfig) -> None:
    plain = EnsembleConfig()
    for field in dataclasses.fields(config):
        asks = _ONLY_WITH.get(field.name, "")
        if asks and not getattr(config, asks) and getattr(config, field.name) != getattr(plain, field.name):
            raise UserError(
                f"{settings.flag_of(field)} would do nothing: it goes with --{asks.replace('_', '-')}. Add that, or "
                "leave it out"
            )


def _check_hard(config: EnsembleConfig) -> None:
    """Raise UserError for settings of steps if all members are kernel heads, which are fitted at once."""
    if not config.fine_tune_hard or set(config.members) != {KERNEL}:
        return
    for name in ("hard_learning_rate", "hard_epochs"):
        if getattr(config, name) != getattr(EnsembleConfig(), name):
            raise UserError(
                f"--{name.replace('_', '-')} would do nothing: a kernel head makes no steps. Leave it out"
            )


def _check_closer_look(config: EnsembleConfig) -> None:
    if config.closer_look and not (config.leave_one_dataset_out or config.spends_val):
        raise UserError(
            "--closer-look is for --final, and for --all-clips or --leave-one-dataset-out, which measure it: its "
            "thresholds must come from clips that were judged with it. Add one of these flags, or leave it out"
        )


def _check_early_exit(config: EnsembleConfig) -> None:
    if config.early_exit and (config.early_exit not in config.members or len(config.members) == 1):
        raise UserError(
            f"--early-exit {config.early_exit}: this must be one of at least two --members. Received: "
            f"{','.join(config.members)}"
        )
