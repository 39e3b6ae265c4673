"""Settings of train_ensemble_models.py: steps 4 and 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from violence_detection.system.settings import BaseConfig, Limits, option
from violence_detection.training.config import ARCHITECTURES, kind_of

if TYPE_CHECKING:
    from violence_detection.models.averaging import Averaging

MEMBERS = ("deep_lstm", "bilstm", "gru", "conv_lstm", "attention")


@dataclass(frozen=True)
class EnsembleConfig(BaseConfig):
    """Which members are trained, on which clips, and what is done with them."""

    HEADING: ClassVar[str] = "members, folds, final fit"

    members: tuple[str, ...] = option(
        MEMBERS, f"architectures to train and average, comma separated. There are: {', '.join(ARCHITECTURES)}"
    )
    average: str = option(
        "auto",
        "what is averaged: the members' probabilities, or their logits, each divided by the member's own temperature "
        "and all of equal weight. auto: logits if members are of different kinds (kernel, i3d_tuned, the others). The "
        "temperatures come from the folds, else from the selection part",
        choices=("auto", "probabilities", "logits"),
    )
    early_exit: str | None = option(
        None,
        "the member that judges first, and alone where it sees no fight (--early-exit-below). The backbones of the "
        "others then run for the rest only, so new videos are judged faster. Without it, all members judge all",
        shown_as="MEMBER",
    )
    early_exit_below: float = option(
        0.08,
        "with --early-exit: that member judges alone where its P(fight) is below this",
        limits=Limits(above=0, below=0.5),
    )
    datasets: tuple[str, ...] = option(
        (), "data sets to train and to measure on, comma separated. Without it: all"
    )
    add_datasets: tuple[str, ...] = option(
        (),
        "with --datasets: further data sets to train on, but not to select or to measure on, comma separated. rest: "
        "all others",
    )
    cross_validate: int = option(
        0,
        "number of folds, cut by source from train; 0: none. Each fold trains all members and is measured on the clips "
        "held out",
        limits=Limits(most=1000),
    )
    all_clips: bool = option(
        False,
        "cut the folds from train and val together. Val is then spent, and the usual ensemble is not trained. Goes "
        "with --cross-validate, --leave-one-dataset-out or --final",
    )
    leave_one_dataset_out: bool = option(
        False,
        "for each data set, train all members on the others alone and measure them on it. --cross-validate K adds the "
        "in-set figure. The usual ensemble is not trained",
    )
    seeds: int = option(
        1,
        "with --leave-one-dataset-out: do it with this many seeds, from --seed on",
        limits=Limits(least=1, most=1000),
    )
    tta: int = option(
        1,
        "views of each held-out clip to average (test-time augmentation); 1: the plain clip alone. Goes with "
        "--cross-validate, --leave-one-dataset-out or --final",
        limits=Limits(least=1, most=1000),
    )
    closer_look: bool = option(
        False,
        "if what moves fills a small part of the picture, judge that part too, larger, for people far away. Held-out "
        "clips are judged so, and the final fit judges so. Goes with --final, --all-clips or --leave-one-dataset-out",
    )
    final: bool = option(
        False,
        "train the members on every labelled clip (train, selection and val together) into final/. Folds of all clips "
        "decide for how many steps: those of --cross-validate K, else those that are there, else 5 made first. Val is "
        "then spent, and only the accuracy of the folds is known",
    )
    final_by: str = option(
        "folds",
        "with --final: what decides on steps, temperatures and thresholds. folds: the folds. left-out: the data sets "
        "of --leave-one-dataset-out, with the first seed, so that thresholds are for places that the model has not "
        "seen. Folds are then made only for their figures, with --cross-validate K",
        choices=("folds", "left-out"),
    )
    ship: str | None = option(
        None,
        "with --final: make the fit a model of that name, small and whole by itself, for --model NAME. It is put into "
        "$VIOLENCE_MODELS, else into the package",
        shown_as="NAME",
    )
    fine_tune_hard: bool = option(
        False,
        "train the members further, with more of the hard clips: train clips that models not trained on them misjudge",
    )
    hard_below: float = option(
        0.6,
        "with --fine-tune-hard: a clip is hard if its true class gets less than this, out of fold",
        limits=Limits(above=0, most=1),
    )
    hard_share: float = option(
        0.4,
        "with --fine-tune-hard: share of hard clips in an epoch; the others are replayed",
        limits=Limits(above=0, below=1),
    )
    hard_learning_rate: float = option(
        1e-4, "with --fine-tune-hard: peak learning rate", limits=Limits(above=0, most=100)
    )
    hard_epochs: int = option(
        20,
        "with --fine-tune-hard: at most this many epochs. A quarter of them without a gain ends it, unless --keep last",
        limits=Limits(least=1, most=1_000_000),
    )
    show_val: bool = option(
        False,
        "measure the ensemble on val too; the look is noted in combined_all/val_ledger.jsonl. Without it val is not "
        "looked at, and you tune by the selection part",
    )
    parallel: int = 1

    @property
    def averaged(self) -> Averaging:
        """How the members' probabilities are combined into one."""
        return self.averaged_of(self.members)

    def averaged_of(self, members: tuple[str, ...]) -> Averaging:
        """How `members`, all or some of this run's members, are averaged.

        With `average` "auto", the kinds of all of this run's members decide. A single member is neither averaged in
        logits nor given an early exit.
        """
        from violence_detection.models.averaging import Averaging, EarlyExit

        in_logits = self.average == "logits"
        if self.average == "auto":
            in_logits = len({kind_of(name) for name in self.members}) > 1
        several = len(members) > 1
        exits = EarlyExit(self.early_exit, self.early_exit_below) if self.early_exit in members else None
        return Averaging(in_logits and several, exits if several else None)

    @property
    def spends_val(self) -> bool:
        """Whether val's clips count as train clips, so that val no longer measures anything."""
        return self.all_clips or self.final

    @property
    def by_left_out(self) -> bool:
        """Whether left-out data sets, not folds, decide the final fit's steps, temperatures and thresholds."""
        return self.final_by == "left-out"
