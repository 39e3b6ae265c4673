"""Checks whether an engine may write to a cache: it must reproduce the features that other engines have made there.

An engine may add to a cache that others have filled only if its features differ from theirs by at most TOLERANCE. That
measurement is kept beside the features, in engine-<name>.json.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from violence_detection.backbones.engines import Engine
from violence_detection.backbones.precision import TOLERANCE, relative_error
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.features.cache import FeatureStore, outdated
from violence_detection.features.extraction_pass import BackboneGroup, WantedClip
from violence_detection.features.key import BackboneRun
from violence_detection.video import augment, pictures

log = logging.getLogger(__name__)

_CLIPS_COMPARED = 3
_ENTRIES_EXAMINED = 100  # at most, to find clips whose features another engine made


def probe_images(wanted: Sequence[WantedClip], run: BackboneRun) -> Mapping[str, np.ndarray]:
    """Images of the first clip that can be read, stream -> (T, S, S, 3) uint8; empty if none can."""
    for clip in wanted:
        try:
            return _images(clip, augment.PLAIN, run)
        except UnreadableVideo:
            continue
    return {}


def compare_with_cache(engine: Engine, group: BackboneGroup, wanted: Sequence[WantedClip]) -> None:
    """Compare an engine's features with those that others made in the group's stores, and note that it may write there.

    A store is skipped if the engine was compared there before, or is the only one that writes there. If no features can
    be compared, the engine may write, and the next run compares. Raises UserError if the features differ by more than
    TOLERANCE.
    """
    for stream in group.config.streams:
        for name, store in group.of_stream(stream).items():
            known = store.engines()
            alone = not known.keys() - {engine.name}
            if engine.name in known and (alone or known[engine.name]["relative_error"] is not None):
                continue
            errors = _errors(engine, group, stream, name, wanted)
            worst = max(errors.values(), default=None)
            if worst is not None and worst > TOLERANCE:
                raise UserError(
                    f"{engine.name} differs by {100 * worst:.2g} % from the features in {store.folder}, made by "
                    f"{_other_engines(store, errors, engine)}; at most {100 * TOLERANCE:g} % is allowed in one cache. "
                    "Use the engine they were made with (--engine), or remove that folder to extract all of them again"
                )
            if worst is not None:
                log.info(
                    "%s: %s reproduces cached features to %.2g %%",
                    store.folder.name,
                    engine.name,
                    100 * worst,
                )
            store.note_engine(engine.name, relative_error=worst, clips=sorted(errors), tolerance=TOLERANCE)


def _errors(
    engine: Engine, group: BackboneGroup, stream: str, name: str, wanted: Sequence[WantedClip]
) -> dict[str, float]:
    """Relative error of the engine on a few cached clips that another engine made, by clip id."""
    errors: dict[str, float] = {}
    store = group.stores[name]
    entries = (clip for clip in wanted if store.path(clip.clip_id).is_file())
    for clip in itertools.islice(entries, _ENTRIES_EXAMINED):
        if len(errors) == _CLIPS_COMPARED:
            break
        whole = store.variants(clip.clip_id)
        if whole and outdated(whole, clip.by_time):
            continue
        made_by = store.engines_of(clip.clip_id) if whole else {}
        # a closer look may have no pictures of its own, where it shows the plain clip again
        others = [v for v, by in made_by.items() if by != engine.name and v != augment.CLOSER]
        if not others:
            continue
        variant = min(others)
        try:
            images = _images(clip, variant, group)[stream]
        except UnreadableVideo:
            continue
        (reference,) = store.read(clip.clip_id, [variant])
        made = group.by_input(stream, engine.submit(images).result())[name]
        errors[clip.clip_id] = relative_error(made, reference)
    return errors


def _other_engines(store: FeatureStore, clip_ids: Mapping[str, float], but: Engine) -> str:
    names = {name for clip_id in clip_ids for name in store.engines_of(clip_id).values()}
    return ", ".join(sorted(names - {but.name}))


def _images(clip: WantedClip, variant: str, run: BackboneRun) -> dict[str, np.ndarray]:
    """Images of one clip and variant, stream -> (T, S, S, 3) uint8. Raises UnreadableVideo naming the file."""
    clip.check_unchanged()
    size = run.backbone.input_size
    ((_, by_stream),) = pictures.clip_variants(clip.path, clip.clip_id, (variant,), size, run.config)
    return by_stream
