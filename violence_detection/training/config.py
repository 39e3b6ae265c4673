"""The settings of step 3, and the stages of the roadmap as sets of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar

from violence_detection.errors import UserError
from violence_detection.system.settings import MOST_SEED, BaseConfig, Limits, option

#: The head that is fitted in one go, not by training steps. It ignores the order of frames.
KERNEL = "kernel"
#: The kernel head does not scale features shorter than this up to unit length: where nothing moves, features that
#: measure movement are nothing but rounding errors, which depend on the engine that computed them.
LEAST_LENGTH = 1e-3
#: Heads on features, named after what pools the features over time.
ON_FEATURES = (
    "bilstm_attention", "lstm", "deep_lstm", "bilstm", "gru", "conv_lstm", "attention", "average", KERNEL,
)  # fmt: skip
#: Heads that are a whole video network -> the backbone whose pictures each is trained on.
PICTURES_OF: Mapping[str, str] = MappingProxyType({"i3d_tuned": "i3d_pictures"})
ARCHITECTURES = (*ON_FEATURES, *PICTURES_OF)


def takes(architecture: str, backbone: str) -> bool:
    """Whether an architecture takes what a backbone gives: pictures are for their own head, features for all others."""
    if architecture in PICTURES_OF:
        return PICTURES_OF[architecture] == backbone
    return backbone not in PICTURES_OF.values()


def kind_of(architecture: str) -> str:
    """The kind of an architecture. Probabilities of one kind mean much the same, since its heads are trained alike."""
    return (
        architecture if architecture == "kernel" or architecture in PICTURES_OF else "recurrent and the like"
    )


@dataclass(frozen=True)
class HeadConfig(BaseConfig):
    """Settings of the head. Each architecture uses some of them: see `taken`."""

    HEADING: ClassVar[str] = "heads"

    projection: int = option(
        128, "units that each input is projected to", limits=Limits(least=1, most=65_536)
    )
    units: int = option(64, "units of the recurrent layers", limits=Limits(least=2, most=65_536))
    dropout: float = option(0.5, "dropout between layers", limits=Limits(most=0.99))
    input_dropout: float = option(
        0.5, "dropout on the features, by channel: in all frames of a clip at once", limits=Limits(most=0.99)
    )
    landmarks: int = option(
        1536,
        "member kernel: at most this many train clips that it compares a clip with",
        limits=Limits(least=1, most=1_000_000),
    )
    kernel_width: float = option(
        1.0,
        "member kernel: gamma of its kernel, relative to how far the train clips lie apart. Higher: narrower",
        limits=Limits(above=0, most=10**6),
    )
    kernel_c: float = option(
        0.5,
        "member kernel: how closely it follows the train clips (C)",
        limits=Limits(above=0, most=10**6),
    )

    tuned_steps: int = option(
        300,
        "member i3d_tuned: training steps, whatever --epochs says",
        limits=Limits(least=1, most=1_000_000),
    )
    tuned_batch_size: int = option(
        32,
        "member i3d_tuned: clips per step, whatever --batch-size says",
        limits=Limits(least=1, most=10_000),
    )
    tuned_learning_rate: float = option(
        1e-4,
        "member i3d_tuned: peak learning rate of its network. The last layer, which is new, has twenty times as much",
        limits=Limits(above=0, most=1),
    )
    keep_pretrained: float = option(
        0.5,
        "member i3d_tuned: share of the published weights when the trained ones are averaged with them at the end; 0: "
        "the trained ones alone",
        limits=Limits(most=1),
    )

    def recorded(self, architecture: str) -> dict[str, Any]:
        """The settings of an architecture, name -> value, as the records of trained models contain them."""
        kernel = {"landmarks", "kernel_width", "kernel_c"}
        tuned = {"tuned_steps", "tuned_batch_size", "tuned_learning_rate", "keep_pretrained"}
        values = asdict(self)
        if architecture == KERNEL:
            return {k: v for k, v in values.items() if k in kernel}
        if architecture in PICTURES_OF:
            return {k: v for k, v in values.items() if k in tuned | {"dropout"}}
        return {k: v for k, v in values.items() if k not in kernel | tuned}

    def used_fields(self, architecture: str) -> frozenset[str]:
        """The settings that affect an architecture. Its records may contain more, for earlier versions' sake."""
        return frozenset(self.recorded(architecture)) - ({"units"} if architecture == "average" else set())


@dataclass(frozen=True)
class TrainConfig(BaseConfig):
    """Settings of the training of one head."""

    HEADING: ClassVar[str] = "training"

    epochs: int = option(1000, "train for at most this many epochs", limits=Limits(least=1, most=1_000_000))
    batch_size: int = option(256, "clips per step, over all devices together", limits=Limits(least=1))
    accumulate: int = option(
        1,
        "parts in which a device takes its share of a batch before the weights are updated. More parts need less "
        "memory",
        limits=Limits(least=1),
    )
    learning_rate: float = option(
        1e-3, "peak learning rate of the cosine schedule", limits=Limits(above=0, most=100)
    )
    schedule_epochs: int = option(
        60,
        "epochs over which the learning rate falls along the cosine; it then stays at its floor",
        limits=Limits(least=1, most=1_000_000),
    )
    warmup_epochs: int = option(
        3, "epochs in which the learning rate rises from 0", limits=Limits(most=1_000_000)
    )
    weight_decay: float = option(1e-3, "weight decay of AdamW", limits=Limits(most=100))
    label_smoothing: float = option(
        0.1,
        "how far labels are drawn towards a half: with 0.1 a fight counts as 0.95 and a nonfight as 0.05",
        limits=Limits(below=1),
    )
    patience: int = option(
        20,
        "stop after this many epochs without a better selection loss. Not with --keep last",
        limits=Limits(least=1),
    )
    selection_fraction: float = option(
        0.15, "share of train, cut by source, that chooses the epoch", limits=Limits(above=0, below=1)
    )
    keep: str = option(
        "best",
        "epoch whose weights are kept. best: the one with the lowest selection loss. last: the one at which the "
        "learning rate has fallen (--schedule-epochs), where training then ends; for sets so small that choosing is "
        "chance",
        choices=("best", "last"),
    )
    mixed_precision: str = option(
        "auto",
        "on: float16 on a GPU, bfloat16 on a CPU; off: float32. auto: on with a GPU, off without one, but on for the "
        "member i3d_tuned if the CPU multiplies bfloat16 in hardware",
        choices=("auto", "on", "off"),
    )
    devices: int = option(
        0,
        "devices to mirror on; 0: every GPU, or one CPU. On a CPU, logical devices are made",
        limits=Limits(most=64),
    )
    seed: int = option(
        0,
        "seed of the selection part, the weights, the order and the dropout",
        limits=Limits(most=MOST_SEED),
    )

    def __post_init__(self) -> None:
        """Raise UserError for a setting that cannot work."""
        super().__post_init__()
        if self.accumulate > self.batch_size:
            raise UserError(
                f"a batch of {self.batch_size} clips cannot be divided into {self.accumulate} parts. Lower "
                "--accumulate or change --batch-size (i3d_tuned: --tuned-batch-size)"
            )


def settings_of(architecture: str) -> frozenset[str]:
    """The names of the training settings that affect an architecture."""
    of_all = {"selection_fraction", "seed"}
    if architecture == KERNEL:  # fitted in one go, on one device, in float32
        return frozenset(of_all)
    if architecture in PICTURES_OF:  # has its own batch size, steps and learning rate, in HeadConfig
        own = {"mixed_precision", "devices", "accumulate", "weight_decay", "label_smoothing"}
        return frozenset(of_all | own)
    return frozenset(field.name for field in fields(TrainConfig))


def check_patience(train: TrainConfig) -> None:
    """Raise UserError for a patience other than the default that would have no effect.

    TrainConfig does not check it, since fine-tuning on hard clips sets a patience whatever `keep` is.
    """
    if train.keep == "last" and train.patience != TrainConfig.patience:
        raise UserError(
            "--patience would do nothing: with --keep last, training ends at --schedule-epochs. Leave out one of the "
            "two flags"
        )


@dataclass(frozen=True)
class Preset:
    """A stage of the roadmap: a head, and the settings whose defaults differ from those of the configs."""

    summary: str
    architecture: str
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


PRESETS = {
    "baseline": Preset(
        "VGG19 (fc2), LSTM 128/64, no augmentation",
        "lstm",
        MappingProxyType(
            {"backbone": ("vgg19",), "streams": ("rgb",), "augment": 1, "units": 128, "batch_size": 64}
        ),
    ),
    "ultra": Preset(
        "VGG19 (fc2), LSTM 256/128, 5 variants of each clip",
        "lstm",
        MappingProxyType(
            {"backbone": ("vgg19",), "streams": ("rgb",), "augment": 5, "units": 256, "batch_size": 64}
        ),
    ),
    "ultimate": Preset(
        "EfficientNet-B4 with motion, BiLSTM with attention, 10 variants, cosine annealing, at most 1000 epochs",
        "bilstm_attention",
        MappingProxyType(
            {"backbone": ("efficientnet_b4",), "streams": ("rgb", "motion"), "augment": 10, "epochs": 1000,
             "batch_size": 256}
        ),
    ),
}  # fmt: skip
