"""`--check`: report what a training run would find on this machine. Trains and extracts nothing."""

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

#: Libraries that TensorFlow loads at its start to use a GPU. If one is missing, it uses only the CPU.
CUDA_LIBRARIES = ("libcuda.so.1", "libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12",
                  "libcufft.so.11", "libcusolver.so.11", "libcusparse.so.12", "libcudnn.so.9",
                  "libnvrtc.so.12", "libnccl.so.2")  # fmt: skip
_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_PACKAGES = ("tensorflow", "keras", "tensorboard", "numpy", "opencv-python-headless", "openvino", "isal")
#: Variants of clips (both streams) extracted per hour, a rough rate for machines on which none was measured.
_ROUGH_VARIANTS_PER_HOUR = {"GPU": 40_000, "CPU": 3_000}
#: Billions of multiply-adds per variant for which those rates hold: EfficientNet-B4, 20 frames, both streams.
_ROUGH_GMACS = 177.0
#: Clips per second in training the head of the preset `ultimate`, measured on two CPU cores; a GPU is not slower.
_ROUGH_SAMPLES_PER_SECOND = 1500.0
#: Epochs after which early stopping has likely ended such a training.
_LIKELY_EPOCHS = 60


def run(how: ExtractConfig, features: FeatureConfig, epochs: int) -> dict[str, Any]:
    """Check libraries, devices, memory, disk and data; log the findings and return them.

    `ready` in the result: training can start. If it is False, `problems` says what must be done first.
    """
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
    """The versions of the packages that training needs. Raises UserError if one is not installed."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as e:
            raise UserError(f"{package} is not installed. Run: pip install -r requirements.txt") from e
    log.info("python %s, %s", sys.version.split()[0], ", ".join(f"{k} {v}" for k, v in versions.items()))
    return {"versions": versions}


def devices() -> dict[str, Any]:
    """Count the GPUs that the machine has, and those that TensorFlow sees."""
    usable = len(tensorflow_start.gpus())
    driver = machine.gpus()
    n_gpus = _gpu_count(driver)
    for gpu in driver:
        log.info("GPU: %s, %.1f of %.1f GB in use, %.0f %% busy", gpu.name, gpu.memory_used_mb / 1024,
                 gpu.memory_mb / 1024, gpu.use_percent)  # fmt: skip
    log.info("TensorFlow sees %d of %d GPU(s)", usable, n_gpus)
    return {"gpus": n_gpus, "gpus_usable": usable}


def _gpu_count(driver: Sequence[machine.Gpu]) -> int:
    """The number of GPUs in the machine: those that the driver reports, or the device files if these are more."""
    return max(len(driver), len(sorted(Path("/dev").glob("nvidia[0-9]*"))))


def _chosen(n_gpus: int) -> int:
    """How many of the machine's GPUs CUDA_VISIBLE_DEVICES selects: those before the first entry that names none, as -1.

    All of them if it is not set.
    """
    named = os.environ.get(_VISIBLE_DEVICES)
    if named is None:
        return n_gpus
    return min(n_gpus, len(list(takewhile(re.compile(r"\s*(\d|GPU|MIG)").match, named.split(",")))))


def warn_of_unseen_gpus(usable: int) -> None:
    """Log a warning if TensorFlow sees `usable` GPUs although it should see more."""
    if not tensorflow_start.may_have_gpus():
        return
    if text := unseen_gpus(_gpu_count(machine.gpus()), usable):
        log.warning("%s", text)


def unseen_gpus(n_gpus: int, usable: int) -> str | None:
    """Why TensorFlow sees only `usable` of the machine's `n_gpus` GPUs, and the remedy; None if it sees all it should.

    Where CUDA_VISIBLE_DEVICES selects some of them, it should see only these.
    """
    import tensorflow as tf

    chosen = _chosen(n_gpus)
    if usable >= chosen:
        return None
    some = (
        f", of which {_VISIBLE_DEVICES}={os.environ[_VISIBLE_DEVICES]} selects {chosen},"
        if chosen < n_gpus
        else ""
    )
    text = f"the machine has {n_gpus} GPU(s){some} but TensorFlow sees {usable}"
    missing = missing_libraries()
    if not tf.test.is_built_with_cuda():
        return f'{text}: this TensorFlow is built without CUDA. Run: pip install "tensorflow[and-cuda]"'
    if "libcuda.so.1" in missing:
        return f"{text}: the driver's libcuda.so.1 is missing. Start the container with GPUs (--gpus all)"
    if missing:
        return f'{text}: missing {", ".join(missing)}. Run: pip install "tensorflow[and-cuda]"'
    return (
        f"{text}, although no CUDA library is missing. Check {_VISIBLE_DEVICES}, and what TensorFlow logs "
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
    """The free memory. Raises UserError if it is less than training needs, 2 GB."""
    free = machine.free_memory_bytes()
    log.info("memory: %s free", gigabytes(free))
    if free < 2e9:
        raise UserError(
            f"only {gigabytes(free)} of memory is free; training needs 2 GB. Close other programs"
        )
    return {"memory_free_gb": round(free / 1e9, 1)}


def data(how: ExtractConfig, features: FeatureConfig, epochs: int, kind: str) -> dict[str, Any]:
    """Report on clips, missing features, free disk space, and how long it takes roughly.

    Raises UserError if data, weights or disk space is missing. `kind`: GPU or CPU.
    """
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
    log.info("features: %d variants of clips still to extract, %s; %s free on the disk of %s", lacking,
             gigabytes(feature_bytes), gigabytes(free), how.data_root)  # fmt: skip
    if feature_bytes + RESERVE_BYTES > free:
        raise UserError(
            f"{how.data_root}: {gigabytes(free)} free, {gigabytes(feature_bytes + RESERVE_BYTES)} needed. Use a "
            "smaller --augment, or a --data-root on a larger disk"
        )
    train = int((frame.split == "train").sum())
    hours = sum(m.variants / (m.per_hour or _rough_per_hour(kind, m.gmacs)) for m in missing)
    hours += min(epochs, _LIKELY_EPOCHS) * train / _ROUGH_SAMPLES_PER_SECOND / 3600
    cost = f", {hours * how.usd_per_hour:.2f} USD" if how.usd_per_hour else " (--usd-per-hour adds the cost)"
    accuracy = (
        "about"
        if all(m.per_hour for m in missing)
        else "very roughly, since part of the extraction was never timed here,"
    )
    log.info(
        "time: %s %.1f h on this %s%s; once training runs, its log gives better estimates",
        accuracy,
        hours,
        kind,
        cost,
    )
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
    """The features that are missing of one run of backbones, and how fast they can be extracted.

    `variants`: the number of clips' variants to extract, `size_bytes`: the size of their features on disk. `per_hour`:
    variants per hour in an earlier extraction on this hardware; 0: there was none. `gmacs`: see registry.Backbone.
    """

    variants: int
    size_bytes: int
    per_hour: float
    gmacs: float


def missing_features(
    frame: pd.DataFrame, variants: Sequence[str], config: FeatureConfig, how: ExtractConfig
) -> list[Missing]:
    """The features that are missing, for each set of backbones that run together.

    Their caches are filled together, so `variants` is that of the cache which lacks most. Raises UserError if a
    backbone's weights cannot be had.
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
    """The clips whose entry in the cache lacks wanted variants, each with just these variants."""
    from violence_detection.features.cache import outdated

    found = []
    for clip in wanted:
        there = store.variants(clip.clip_id, verify=False) or frozenset()
        there = frozenset() if outdated(there, clip.by_time) else there
        if lacking := tuple(v for v in clip.variants if v not in there):
            found.append(replace(clip, variants=lacking))
    return found
