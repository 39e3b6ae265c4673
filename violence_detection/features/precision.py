"""How much features may differ for speed's sake: between precisions, and between the engines that fill one cache.

Reduced precision (float16 on GPUs, bfloat16 on CPUs with AMX) is used only where it changes real features by at most
TOLERANCE, measured at each start against float32. An engine joins a cache that others have filled only if it
reproduces what they made within TOLERANCE; that measurement is kept beside the features, in engine-<name>.json.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from violence_detection.backbones import registry
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.video import augment, pictures

if TYPE_CHECKING:
    from violence_detection.backbones.engines import Engine
    from violence_detection.features.cache import FeatureStore

log = logging.getLogger(__name__)

#: Largest relative error ||a - b|| / ||b|| of a clip's features. Storing float16 alone makes 0.0002.
TOLERANCE = 0.01
_CLIPS_COMPARED = 3
_ENTRIES_EXAMINED = 100  # in search of clips that another engine made
_RECORD_PREFIX = "engine-"

#: Images of a real clip, stream -> (T, S, S, 3) uint8, made only if they are needed; empty if no clip can be read.
Probe = Callable[[], Mapping[str, np.ndarray]]


class ClipFile(Protocol):
    """A clip's id and file."""

    @property
    def clip_id(self) -> str: ...
    @property
    def path(self) -> Path: ...


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    """||values - reference|| / ||reference||, in float64; infinite if a value is not finite."""
    a, b = values.astype(np.float64), reference.astype(np.float64)
    error = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-12)
    return error if np.isfinite(error) else float("inf")


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (Intel AMX)."""
    return cpuinfo.is_file() and " amx_bf16" in cpuinfo.read_text()


def faster_if_equal(reduced: Callable[[], Engine], exact: Engine, probe: Probe) -> Engine:
    """The engine of reduced precision if it gives the exact one's features of all streams within TOLERANCE."""
    by_stream = probe()
    if not by_stream:
        return exact
    fast = reduced()
    errors = {
        stream: relative_error(fast.submit(images).result(), exact.submit(images).result())
        for stream, images in by_stream.items()
    }
    chosen = fast if max(errors.values()) <= TOLERANCE else exact
    told = ", ".join(f"{stream} {100 * error:.2g} %" for stream, error in errors.items())
    log.info("%s differs from %s by %s: using %s", fast.name, exact.name, told, chosen.name)
    return chosen


def probe_of(wanted: Sequence[ClipFile], backbone: registry.Backbone, config: FeatureConfig) -> Probe:
    """A probe from the first of the clips that can be read."""

    def images() -> Mapping[str, np.ndarray]:
        for clip in wanted:
            try:
                return _images(clip, augment.PLAIN, backbone, config)
            except UnreadableVideo:
                continue
        return {}

    return images


def admit(
    engine: Engine,
    stores: Mapping[str, FeatureStore],
    wanted: Sequence[ClipFile],
    backbone: registry.Backbone,
    config: FeatureConfig,
) -> None:
    """See that an engine may write to these stores (stream -> store), comparing it with what others made, once.

    Raises UserError, naming folder and remedy, if its features differ by more than TOLERANCE.
    """
    for stream, store in stores.items():
        record = store.folder / f"{_RECORD_PREFIX}{engine.name}.json"
        others = [p for p in store.folder.glob(f"{_RECORD_PREFIX}*.json") if p != record]
        known = storage.read_json(record) if record.is_file() else None
        if known and (known["relative_error"] is not None or not others):
            continue
        errors = _compare(engine, stream, store, wanted, backbone, config)
        worst = max(errors.values(), default=None)
        if worst is not None and worst > TOLERANCE:
            raise UserError(
                f"{engine.name} differs by {100 * worst:.2g} % from the features in {store.folder}, made by "
                f"{_makers_of(store, errors, engine)}; at most {100 * TOLERANCE:g} % is allowed in one cache. Use the "
                "engine they were made with (--engine), or remove that folder to make all of them again"
            )
        if worst is not None:
            log.info(
                "%s: %s reproduces cached features to %.2g %%", store.folder.name, engine.name, 100 * worst
            )
        storage.write_json(record, {"relative_error": worst, "clips": sorted(errors), "tolerance": TOLERANCE})


def makers_by_input(stores: Mapping[str, FeatureStore]) -> dict[str, list[str]]:
    """The engines admitted to each cache, which may have made features in it, by model input."""
    return {
        name: sorted(
            p.stem.removeprefix(_RECORD_PREFIX) for p in store.folder.glob(f"{_RECORD_PREFIX}*.json")
        )
        for name, store in stores.items()
    }


def _compare(
    engine: Engine,
    stream: str,
    store: FeatureStore,
    wanted: Sequence[ClipFile],
    backbone: registry.Backbone,
    config: FeatureConfig,
) -> dict[str, float]:
    """Relative error of the engine on a few cached clips that another engine made, by clip id."""
    errors: dict[str, float] = {}
    entries = (clip for clip in wanted if store.path(clip.clip_id).is_file())
    for clip in itertools.islice(entries, _ENTRIES_EXAMINED):
        if len(errors) == _CLIPS_COMPARED:
            break
        whole = store.variants(clip.clip_id)
        others = (
            [v for v, maker in store.made_by(clip.clip_id).items() if maker != engine.name] if whole else []
        )
        if not others:
            continue
        variant = min(others)
        try:
            images = _images(clip, variant, backbone, config)[stream]
        except UnreadableVideo:
            continue
        (reference,) = store.read(clip.clip_id, [variant])
        errors[clip.clip_id] = relative_error(engine.submit(images).result(), reference)
    return errors


def _makers_of(store: FeatureStore, clip_ids: Mapping[str, float], but: Engine) -> str:
    makers = {maker for clip_id in clip_ids for maker in store.made_by(clip_id).values()}
    return ", ".join(sorted(makers - {but.name}))


def _images(
    clip: ClipFile, variant: str, backbone: registry.Backbone, config: FeatureConfig
) -> dict[str, np.ndarray]:
    """Images of one clip and variant, stream -> (T, S, S, 3) uint8. Raises UnreadableVideo naming the file."""
    ((_, by_stream),) = pictures.clip_variants(
        clip.path, clip.clip_id, (variant,), backbone.input_size, config
    )
    return by_stream
