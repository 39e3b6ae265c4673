"""`--check`: what a training run would find here, before hours are spent on it. Trains and extracts nothing."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.errors import UserError
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.system import machine, tensorflow_start
from violence_detection.system.disks import RESERVE_BYTES, free_bytes_of, gigabytes

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.features.cache import FeatureStore
    from violence_detection.features.extraction_pass import WantedClip

log = logging.getLogger(__name__)

#: What TensorFlow loads at its start to use a GPU; one that is missing makes it go on with the CPU alone.
CUDA_LIBRARIES = ("libcuda.so.1", "libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12",
                  "libcufft.so.11", "libcusolver.so.11", "libcusparse.so.12", "libcudnn.so.9",
                  "libnvrtc.so.12", "libnccl.so.2")  # fmt: skip
_CHOICE = "CUDA_VISIBLE_DEVICES"
_PACKAGES = ("tensorflow", "keras", "tensorboard", "numpy", "opencv-python-headless", "openvino", "isal")
#: Variants of clips (both streams) an hour where none was measured: a rough rate, said to be one.
_ROUGH_VARIANTS_PER_HOUR = {"GPU": 40_000, "CPU": 3_000}
#: Billions of multiply-adds that such a variant takes: EfficientNet-B4, 20 frames, both streams.
_ROUGH_GMACS = 177.0
#: Clips a second of an ultimate head: measured on two CPU cores; a GPU is not slower. And its epochs.
_ROUGH_SAMPLES_PER_SECOND = 1500.0
_LIKELY_EPOCHS = 60


def run(how: ExtractConfig, features: FeatureConfig, epochs: int) -> dict[str, Any]:
    """Report on devices, memory, disk and data. `ready`: go ahead; else `problems` says what must be done first."""
    found: dict[str, Any] = {}
    problems: list[str] = []

    def look(what: Callable[[], dict[str, Any]]) -> None:
        try:
            found.update(what())
        except UserError as e:
            problems.append(str(e))

    look(libraries)
    found |= devices()
    if text := unseen_gpus(found["gpus"], found["gpus_usable"]):
        problems.append(text)
    look(memory)
    kind = "GPU" if found["gpus_usable"] else "CPU"
    look(lambda: data(how, features, epochs, kind))
    for problem in problems:
        log.error("%s", problem)
    log.info("ready" if not problems else "not ready: %d problem(s) above", *[len(problems)] * bool(problems))
    return {"ready": not problems, "problems": problems, **found}


def libraries() -> dict[str, Any]:
    """Versions of what is installed. Raises UserError for what is missing."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as e:
            raise UserError(f"{package} is not installed. Run: pip install -r requirements.txt") from e
    log.info("python %s, %s", sys.version.split()[0], ", ".join(f"{k} {v}" for k, v in versions.items()))
    return {"versions": versions}


def devices() -> dict[str, Any]:
    """GPUs that the machine has, and how many of them TensorFlow sees."""
    usable = len(tensorflow_start.gpus())
    driver = machine.gpus()
    there = _there(driver)
    for gpu in driver:
        log.info("GPU: %s, %.1f of %.1f GB in use, %.0f %% busy", gpu.name, gpu.memory_used_mb / 1024,
                 gpu.memory_mb / 1024, gpu.use_percent)  # fmt: skip
    log.info("TensorFlow sees %d of %d GPU(s)", usable, there)
    return {"gpus": there, "gpus_usable": usable}


def _there(driver: Sequence[machine.Gpu]) -> int:
    return max(len(driver), len(sorted(Path("/dev").glob("nvidia[0-9]*"))))


def _chosen(there: int) -> int:
    """How many of the machine's GPUs CUDA_VISIBLE_DEVICES leaves: those before the first that is none, as -1."""
    named = os.environ.get(_CHOICE)
    if named is None:
        return there
    return min(there, len(list(takewhile(re.compile(r"\s*(\d|GPU|MIG)").match, named.split(",")))))


def warn_of_unseen_gpus(usable: int) -> None:
    """Say so where TensorFlow sees `usable` GPUs and the machine has more that it was to see."""
    if not tensorflow_start.may_have_gpus():
        return
    if text := unseen_gpus(_there(machine.gpus()), usable):
        log.warning("%s", text)


def unseen_gpus(there: int, usable: int) -> str | None:
    """Why TensorFlow sees fewer GPUs than it is to see of those that are there, and what mends it; None: it does not.

    CUDA_VISIBLE_DEVICES may choose some.
    """
    import tensorflow as tf

    chosen = _chosen(there)
    if usable >= chosen:
        return None
    some = f", of which {_CHOICE}={os.environ[_CHOICE]} chooses {chosen}," if chosen < there else ""
    text = f"{there} GPU(s) are here{some} but TensorFlow sees {usable}"
    missing = missing_libraries()
    if not tf.test.is_built_with_cuda():
        return f'{text}: this TensorFlow is built without CUDA. Run: pip install "tensorflow[and-cuda]"'
    if "libcuda.so.1" in missing:
        return f"{text}: the driver's libcuda.so.1 is missing. Start the container with GPUs (--gpus all)"
    if missing:
        return f'{text}: missing {", ".join(missing)}. Run: pip install "tensorflow[and-cuda]"'
    return (
        f"{text}, though the CUDA libraries are all here. Look at {_CHOICE}, and at what TensorFlow says "
        "with TF_CPP_MIN_LOG_LEVEL=0; the driver may be too old for this TensorFlow (nvidia-smi shows its version)"
    )


def missing_libraries() -> list[str]:
    """The CUDA libraries that are neither on the loader's path nor in the nvidia-* packages of this Python."""
    return [name for name in CUDA_LIBRARIES if not _loads(name) and not any(_packaged(name))]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _packaged(name: str) -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from Path(folder).glob(f"*/lib/{name}*")


def memory() -> dict[str, Any]:
    """Free memory."""
    free = machine.free_memory_bytes()
    log.info("memory: %s free", gigabytes(free))
    if free < 2e9:
        raise UserError(f"only {gigabytes(free)} of memory are free; training takes 2 GB. End other programs")
    return {"memory_free_gb": round(free / 1e9, 1)}


def data(how: ExtractConfig, features: FeatureConfig, epochs: int, kind: str) -> dict[str, Any]:
    """Clips, features that are missing, disk, and a rough time. Raises UserError if data, weights or disk lack."""
    from violence_detection.combine import manifest
    from violence_detection.features import extract
    from violence_detection.video import augment

    extract.check(features)
    extract.check_taken(features)
    combined = how.data_root / "combined_all"
    frame = manifest.read(combined)
    counts = {f"{name}": int(n) for name, n in (frame.split + "/" + frame.label).value_counts().items()}
    log.info("clips: %s", ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    for part in manifest.SPLITS:
        manifest.require_both_classes(part, frame[frame.split == part])
    log.info("data sets: %s", ", ".join(f"{name} {n}" for name, n in frame.dataset.value_counts().items()))
    variants = augment.variant_names("v", how.augment)
    missing = missing_features(frame, variants, features, how)
    lacking, feature_bytes = sum(m.variants for m in missing), sum(m.size_bytes for m in missing)
    free = free_bytes_of(how.data_root / "features")
    log.info("features: %d variants of clips are missing, %s; %s free on the disk of %s", lacking,
             gigabytes(feature_bytes), gigabytes(free), how.data_root)  # fmt: skip
    if feature_bytes + RESERVE_BYTES > free:
        raise UserError(
            f"{how.data_root}: {gigabytes(free)} free, {gigabytes(feature_bytes + RESERVE_BYTES)} needed. Take a "
            "smaller --augment, or a --data-root on a bigger disk"
        )
    train = int((frame.split == "train").sum())
    hours = sum(m.variants / (m.per_hour or _rough_per_hour(kind, m.gmacs)) for m in missing)
    hours += min(epochs, _LIKELY_EPOCHS) * train / _ROUGH_SAMPLES_PER_SECOND / 3600
    cost = f", {hours * how.usd_per_hour:.2f} USD" if how.usd_per_hour else " (--usd-per-hour adds the cost)"
    accuracy = (
        "about" if all(m.per_hour for m in missing) else "very roughly, since nothing was extracted here yet,"
    )
    log.info("time: %s %.1f h on this %s%s; the log says more once it runs", accuracy, hours, kind, cost)
    return {
        "clips": counts,
        "variants_missing": lacking,
        "feature_gb_missing": round(feature_bytes / 1e9, 2),
        "disk_free_gb": round(free / 1e9, 1),
        "hours_roughly": round(hours, 2),
        "usd_roughly": round(hours * how.usd_per_hour, 2),
    }


def _rough_per_hour(kind: str, gmacs: float) -> float:
    return _ROUGH_VARIANTS_PER_HOUR[kind] * min(1.0, _ROUGH_GMACS / gmacs if gmacs else 1.0)


@dataclass(frozen=True)
class Missing:
    """What the cache lacks of one backbone. `per_hour`: variants of clips, as extracted here before; 0: never.

    `gmacs`: of the backbone, see there.
    """

    variants: int
    size_bytes: int
    per_hour: float
    gmacs: float


def missing_features(
    frame: pd.DataFrame, variants: Sequence[str], config: FeatureConfig, how: ExtractConfig
) -> list[Missing]:
    """What lacks, by what runs together; of its caches the one that lacks most counts, since they are made together.

    Raises UserError if a backbone's weights are not here.
    """
    from violence_detection.features import estimate, extract, key
    from violence_detection.features.cache import FeatureStore
    from violence_detection.features.extraction_pass import WantedClip

    wanted = [
        WantedClip(clip_id, Path(), tuple(variants if split == "train" else variants[:1]), by_time)
        for clip_id, split, by_time in zip(frame.clip_id, frame.split, frame.by_time, strict=True)
    ]
    found = []
    for run in key.backbone_runs(config, how.backbone_weights):
        lacking: list[list[WantedClip]] = []
        folders, size = [], 0
        for stream in run.config.streams:
            for backbone in run.backbones:
                record = key.record(config, backbone.name, stream, run.weights)
                folders.append(key.folder_of(how.data_root, record))
                lacking.append(_lacking(FeatureStore(folders[-1]), wanted))
                steps = backbone.steps(run.config.frames)
                size += extract.needed_bytes(lacking[-1], steps, backbone.feature_dim)
        rate = estimate.RateRecord(folders[0], run).known() or 0.0
        found.append(
            Missing(max(map(estimate.count_variants, lacking)), size, 3600 * rate, run.backbone.gmacs)
        )
    return found


def _lacking(store: FeatureStore, wanted: Sequence[WantedClip]) -> list[WantedClip]:
    """The clips whose entry lacks variants, with those."""
    from violence_detection.features.cache import outdated

    found = []
    for clip in wanted:
        there = store.variants(clip.clip_id, verify=False) or frozenset()
        there = frozenset() if outdated(there, clip.by_time) else there
        if lacking := tuple(v for v in clip.variants if v not in there):
            found.append(replace(clip, variants=lacking))
    return found
