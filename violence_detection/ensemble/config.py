"""The settings of steps 4 and 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from violence_detection.system.settings import BaseConfig, Limits, option
from violence_detection.training.config import kind_of

if TYPE_CHECKING:
    from violence_detection.models.averaging import Averaging

MEMBERS = ("deep_lstm", "bilstm", "gru", "conv_lstm", "attention")


@dataclass(frozen=True)
class EnsembleConfig(BaseConfig):
    """Which members are trained on which clips, and what else is made of them."""

    HEADING: ClassVar[str] = "members, folds, final fit"

    members: tuple[str, ...] = option(MEMBERS, "architectures to train and average, comma separated")
    average: str = option(
        "auto",
        "what of the members is averaged: their probabilities, or their logits, each divided by a temperature of the "
        "member's own (told by the folds, else by the selection part) and all of equal weight; auto: logits where "
        "members are of different kinds (kernel, i3d_tuned, the others)",
        choices=("auto", "probabilities", "logits"),
    )
    early_exit: str | None = option(
        None,
        "the member that judges first, and alone where it sees no fight (--early-exit-below), so that new videos are "
        "judged faster: the backbones of the others are run for the rest only; without it, all members judge all",
        shown_as="MEMBER",
    )
    early_exit_below: float = option(
        0.08,
        "with --early-exit: that member judges alone where its P(fight) is below this",
        limits=Limits(above=0, below=0.5),
    )
    datasets: tuple[str, ...] = option(
        (), "data sets to train and to measure on, comma separated; without it, all"
    )
    add_datasets: tuple[str, ...] = option(
        (),
        "data sets to train on as well, but neither to select nor to measure on, comma separated; rest: all others",
    )
    cross_validate: int = option(
        0,
        "folds, cut by source from train; each trains all members and is measured on the clips held out; 0: none",
        limits=Limits(most=1000),
    )
    all_clips: bool = option(
        False, "cut the folds from train and val together and train nothing else: val is then spent"
    )
    final: bool = option(
        False,
        "train the members on every labelled clip, train, selection and val together, for as many steps as the folds "
        "of a cross-validation of all clips say (--cross-validate K, without it 5; made first unless they are there) "
        "-> final/. Only their accuracy is then known; val is spent",
    )
    final_by: str = option(
        "folds",
        "with --final: what says how many steps, temperatures and thresholds: the folds, or (with "
        "--leave-one-dataset-out) the data sets left out, of the first seed, so that thresholds are for videos of "
        "places that the model has not seen; folds are then made for their figures alone, with --cross-validate K",
        choices=("folds", "left-out"),
    )
    ship: str | None = option(
        None,
        "with --final: make the fit a model of that name, small and whole by itself, for --model NAME; it is put into "
        "$VIOLENCE_MODELS, else into the package",
        shown_as="NAME",
    )
    leave_one_dataset_out: bool = option(
        False,
        "for each data set train all members on the others alone and measure on it, with --cross-validate K beside it; "
        "no other ensemble is trained",
    )
    seeds: int = option(
        1,
        "how often --leave-one-dataset-out is done, with seeds from --seed on",
        limits=Limits(least=1, most=1000),
    )
    tta: int = option(
        1,
        "views of each held-out clip that are averaged; 1 is the plain clip alone. For --cross-validate, "
        "--leave-one-dataset-out and --final",
        limits=Limits(least=1, most=1000),
    )
    closer_look: bool = option(
        False,
        "where what moves fills a small part of the picture, that part is looked at as well, larger, for people far "
        "away; held-out clips are judged so, and the final fit judges so. For --final, --all-clips and "
        "--leave-one-dataset-out",
    )
    fine_tune_hard: bool = option(
        False,
        "go on training the members with more of the train clips that models not trained on them misjudge",
    )
    hard_below: float = option(
        0.6, "a clip is hard if less is given to its true class, out of fold", limits=Limits(above=0, most=1)
    )
    hard_share: float = option(
        0.4,
        "share of hard clips in an epoch of fine-tuning; the others are replayed",
        limits=Limits(above=0, below=1),
    )
    hard_learning_rate: float = option(
        1e-4, "peak learning rate of fine-tuning", limits=Limits(above=0, most=100)
    )
    hard_epochs: int = option(
        20,
        "epochs of fine-tuning; a quarter of them without gain ends it, unless --keep last",
        limits=Limits(least=1, most=1_000_000),
    )
    show_val: bool = option(
        False,
        "measure the ensemble on val as well, which is noted in combined_all/val_ledger.jsonl; without it val is not "
        "looked at, so that what one tunes by is the selection part",
    )
    parallel: int = 1

    @property
    def averaged(self) -> Averaging:
        """How the members' probabilities become one."""
        return self.averaged_of(self.members)

    def averaged_of(self, members: tuple[str, ...]) -> Averaging:
        """The same of some of the members."""
        from violence_detection.models.averaging import Averaging, EarlyExit

        in_logits = self.average == "logits"
        if self.average == "auto":
            in_logits = len({kind_of(name) for name in self.members}) > 1
        several = len(members) > 1
        exits = EarlyExit(self.early_exit, self.early_exit_below) if self.early_exit in members else None
        return Averaging(in_logits and several, exits if several else None)

    @property
    def spends_val(self) -> bool:
        """Whether val's clips are trained on like all others."""
        return self.all_clips or self.final

    @property
    def by_left_out(self) -> bool:
        """Whether the data sets left out decide the final fit."""
        return self.final_by == "left-out"
