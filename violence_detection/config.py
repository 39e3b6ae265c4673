"""The settings of each stage: one frozen dataclass a stage, the source of the flags and saved with what it made.

Light on purpose: parsers are built from these before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from violence_detection.cli import default_data_root, option

STREAMS = ("rgb", "motion")
MEMBERS = ("deep_lstm", "bilstm", "gru", "conv_lstm", "attention")


@dataclass(frozen=True)
class FeatureConfig:
    """What turns a clip into features. Everything here but the last block changes the values."""

    backbone: tuple[str, ...] = option(("efficientnet_b4",), "backbones, comma separated")
    streams: tuple[str, ...] = option(
        ("rgb", "motion"),
        "rgb (frames) and motion (differences of successive frames); i3d takes rgb whatever is said here",
    )
    frames: int = option(20, "frames sampled from a clip, evenly spaced")
    i3d_frames: int = option(32, "frames that i3d takes instead, evenly spaced; 8 give one step of features")
    window_s: float = option(5.0, "seconds a model sees at once; a longer clip is judged on its middle")
    motion_spacing_s: float = option(0.08, "seconds between the frames that motion subtracts")
    motion_gain: float = option(2.0, "factor on the absolute difference, clipped at 255")
    focus: float = option(
        0.0,
        "side of the crop around the strongest motion that every second variant and view shows, as a fraction "
        "of the picture's; 0: every one shows the whole picture",
    )
    augment_seed: int = option(0, "seed of the augmentation; cached variants of another seed are not reused")

    backbone_weights: Path | None = option(None, "weights file for the backbone instead of fetching it")
    engine: str = option("auto", "what runs the backbone", choices=("auto", "tensorflow", "openvino"))


@dataclass(frozen=True)
class ExtractConfig:
    """Where features go and how many variants a training clip gets."""

    data_root: Path = option(default_data_root, "folder with raw/, combined_all/ and features/")
    augment: int = option(
        10, "variants of each training clip; the first is the plain clip, so 1 means no augmentation"
    )
    workers: int = option(0, "decoding threads; 0: two a core")
    ray: str | None = option(
        None, "spread the work over a Ray cluster that shares the data root: local, auto or HOST:PORT"
    )
    usd_per_hour: float = option(0.0, "price of a machine, to say beforehand and afterwards what it costs")
    verify_features: bool = option(
        False, "compare the checksums of all cached features, not only of those that are new or have changed"
    )
    features_only: bool = option(False, "extract what features are missing, then end without training")
    preview: int = option(0, "draw the variants of so many clips to <output>/preview/, then end; 0: none")
    prune: str | None = option(
        None,
        "list cached features that these settings and the manifest do not use, then end; yes: delete them",
        choices=("list", "yes"),
        bare="list",
    )
    memory_gb: float = option(
        0.0,
        "features that need no more stay in memory while training, others are read from disk; 0: 40 % of free memory",
    )


@dataclass(frozen=True)
class FindConfig:
    """Where data sets are looked for."""

    data_root: Path = option(default_data_root, "folder with raw/; the inventory is written here")
    roots: tuple[Path, ...] = option((), "further folders to search, comma separated")
    caches: bool = option(True, "search the caches of kagglehub and kaggle too")
    check: bool = option(False, "decode every file and name the ones that are damaged")
    workers: int = option(0, "processes that decode; 0: one a core")


@dataclass(frozen=True)
class CutConfig:
    """How untrimmed videos become clips. All of it changes which clips there are."""

    window_s: float = option(FeatureConfig.window_s, "seconds of a clip that is cut out of a long video")
    shortest_s: float = option(
        0.0,
        "cut fights that last at least so long but less than a window, too; 0: none. Clips of other lengths than "
        "a window are then all fights, and a model may learn just that",
        flag="--shortest-s",
    )
    margin_s: float = option(2.0, "seconds that a non-fight clip keeps from every annotated fight")
    windows_per_video: int = option(
        8, "clips of a class from one video with fights in it, at most, spread evenly"
    )
    normal_windows: int = option(
        2,
        "clips from one video without any fight, at most; there are many more such videos than annotated fights",
    )
    cut_unannotated: bool = option(
        False, "call a violent video that nobody annotated a fight from end to end: a guess, wrong for many"
    )


@dataclass(frozen=True)
class CombineConfig:
    """How found clips become one train/val set. All but `workers` and `link` change the manifest."""

    data_root: Path = option(default_data_root, "folder with raw/; combined_all/ is made in it")
    roots: tuple[Path, ...] = option((), "further folders with data sets, comma separated")
    caches: bool = option(True, "take data sets from the caches of kagglehub and kaggle too")
    seed: int = option(0, "seed of the split; the same seed and clips give the same split on any machine")
    val_fraction: float = option(0.2, "share of the clips that goes to val")
    link: str = option("auto", "how clips get into combined_all", choices=("auto", "hard", "symlink", "copy"))
    workers: int = option(0, "processes that decode; 0: one a core")


@dataclass(frozen=True)
class HeadConfig:
    """The temporal head."""

    projection: int = option(128, "units that each input is projected to")
    units: int = option(64, "units of the recurrent layers")
    dropout: float = option(0.5, "dropout between layers")
    input_dropout: float = option(0.5, "dropout on the features, by channel: in all frames of a clip at once")


@dataclass(frozen=True)
class TrainConfig:
    """How one head is trained."""

    epochs: int = option(1000, "at most so many epochs")
    batch_size: int = option(256, "clips a step, over all devices together")
    accumulate: int = option(
        1, "parts in which a device takes its share of a batch before the weights are updated; less memory"
    )
    learning_rate: float = option(1e-3, "peak of the cosine schedule")
    schedule_epochs: int = option(60, "epochs over which the cosine falls; it then stays at its floor")
    warmup_epochs: int = option(3, "epochs in which the learning rate rises from 0")
    weight_decay: float = option(1e-3, "AdamW's weight decay")
    label_smoothing: float = option(0.1, "share of the label given to the other class")
    patience: int = option(20, "epochs without a better selection loss before it stops")
    selection_fraction: float = option(0.15, "share of train, by source, that chooses the epoch")
    keep: str = option(
        "best",
        "epoch whose weights are kept. best: that of the lowest selection loss; last: that at which the learning rate "
        "has fallen (--schedule-epochs, and training ends there), for sets so small that choosing is chance",
        choices=("best", "last"),
    )
    mixed_precision: str = option(
        "auto", "auto: float16 on GPU, float32 on CPU", choices=("auto", "on", "off")
    )
    devices: int = option(
        0, "devices to mirror on; 0: every GPU, or one CPU. On a CPU, logical devices are made"
    )
    seed: int = option(0, "seed of the split of the selection part, of weights, order and dropout")


@dataclass(frozen=True)
class Preset:
    """A stage of the roadmap: a head, and defaults of the flags that differ from those of the configs."""

    summary: str
    architecture: str
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


PRESETS = {
    "baseline": Preset(
        "VGG19 fc2, LSTM 128/64, no augmentation",
        "lstm",
        MappingProxyType(
            {"backbone": ("vgg19",), "streams": ("rgb",), "augment": 1, "units": 128, "batch_size": 64}
        ),
    ),
    "ultra": Preset(
        "VGG19 fc2, LSTM 256/128, 5 variants of each clip",
        "lstm",
        MappingProxyType(
            {"backbone": ("vgg19",), "streams": ("rgb",), "augment": 5, "units": 256, "batch_size": 64}
        ),
    ),
    "ultimate": Preset(
        "EfficientNet-B4 with motion, BiLSTM and attention, 10 variants, cosine annealing, at most 1000 epochs",
        "bilstm_attention",
        MappingProxyType(
            {"backbone": ("efficientnet_b4",), "streams": ("rgb", "motion"), "augment": 10, "epochs": 1000,
             "batch_size": 256}
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class EnsembleConfig:
    """Which members are trained on which clips, and what else is made of them."""

    members: tuple[str, ...] = option(MEMBERS, "architectures to train and average, comma separated")
    datasets: tuple[str, ...] = option((), "data sets to train and to measure on; without it, all")
    add_datasets: tuple[str, ...] = option(
        (), "data sets to train on as well, but neither to select nor to measure on; rest: all others"
    )
    cross_validate: int = option(
        0,
        "folds, cut by source from train; each trains all members and is measured on the clips held out; 0: none",
    )
    all_clips: bool = option(
        False, "cut the folds from train and val together and train nothing else: val is then spent"
    )
    tta: int = option(
        1, "views of each held-out clip that are averaged; 1 is the plain clip alone. For --cross-validate"
    )
    fine_tune_hard: bool = option(
        False,
        "go on training the members with more of the train clips that models not trained on them misjudge",
    )
    hard_below: float = option(0.6, "a clip is hard if less is given to its true class, out of fold")
    hard_share: float = option(0.4, "share of hard clips in an epoch of fine-tuning; the others are replayed")
    hard_learning_rate: float = option(1e-4, "peak learning rate of fine-tuning")
    hard_epochs: int = option(
        20, "epochs of fine-tuning; a quarter of them without gain ends it, unless --keep last"
    )
    parallel: int = 1


@dataclass(frozen=True)
class DownloadConfig:
    """Which data sets are fetched, and where to."""

    datasets: tuple[str, ...] = option(
        (), "keys of the catalogue (see --list); without it, the roadmap's seven"
    )
    data_root: Path = option(default_data_root, "raw/ and downloads/ are made below it")
    workers: int = option(3, "data sets fetched at once")
    keep_archives: bool = option(False, "keep the archives in <root>/downloads once they are unpacked")
    dry_run: bool = option(False, "say what would be fetched, from where, and whether it fits; fetch nothing")
    catalogue: Path | None = option(None, "another catalogue file (advanced)")


@dataclass(frozen=True)
class ScoreConfig:
    """How trained models are measured on the val clips."""

    models: Path = option(
        Path("models_ensemble"), "ensemble folder, model folder or .keras file", flag="--models"
    )
    data: Path | None = option(None, "<root>/combined_all/val (default: below the data root)")
    data_root: Path = option(default_data_root, "folder with combined_all/, where --data is not given")
    output: Path | None = option(None, "report folder (default: reports/<model>-<time>)")
    tta: int = option(1, "views of each clip that are averaged; 1 is the plain clip alone")
    engine: str = option("auto", "what runs the backbone", choices=("auto", "tensorflow", "openvino"))
    backbone_weights: Path | None = option(None, "weights file for the backbone instead of fetching it")
    workers: int = option(0, "decoding threads; 0: two a core")


@dataclass(frozen=True)
class PredictConfig:
    """How new videos are judged. Sampling and window length are the model's own."""

    model: Path = option(Path("models_ensemble"), "ensemble folder, model folder or .keras file")
    threshold: float = option(0.5, "P(violent) from which a window counts as violent")
    stride_s: float = option(2.5, "seconds from one window to the next in a video longer than one window")
    tta: int = option(1, "views of each window that are averaged; 1 is the plain window alone")
    engine: str = option("auto", "what runs the backbone", choices=("auto", "tensorflow", "openvino"))
    backbone_weights: Path | None = option(None, "weights file for the backbone instead of fetching it")
