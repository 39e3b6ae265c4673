"""The feature cache: one file a clip and stream, one member a variant, a checksum in each member.

    <root>/features/<backbone>-<confighash>/record.json       everything that changes the values
    <root>/features/<backbone>-<confighash>/<clip_id>.npz     members v0, v1, ..., t1, ...: (T, C) float16
    <root>/features/<backbone>-<confighash>/verified.json     entries whose checksums were compared (feature_index)
Each stream has a folder of its own, since its record differs. A member of the zip carries a CRC-32, which every reading
compares, so a damaged entry is noticed at the latest when it is read; it is then named and made again.

Several processes, on several machines that share the volume, may write: an entry appears whole, by a rename, and what
joins an entry is read, merged and written under the folder's lock.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import registry
from violence_detection.errors import UserError
from violence_detection.features.config import FeatureConfig
from violence_detection.features.feature_index import LOCK_NAME, VerifiedIndex, stamp
from violence_detection.system import storage
from violence_detection.video import augment, focus

log = logging.getLogger(__name__)
_FORMAT = 5
RECORD_NAME = "record.json"
_MADE_BY = "_made_by"  # a member that is no variant: JSON as bytes, variant -> engine and precision
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError)


def record(config: FeatureConfig, backbone: str, stream: str, weights: Path) -> dict[str, Any]:
    """Everything that changes a feature's value, and so the cache's key."""
    config = registry.settings(config, backbone)
    crop = [float(config.focus), focus.NOISE_LEVEL, focus.CEILING, focus.VERSION] if config.focus else None
    return {
        "format": _FORMAT,
        "backbone": backbone,
        "weights_sha256": storage.sha256_file(weights),
        "input_size": registry.get(backbone).input_size,
        "stream": stream,
        "frames": config.frames,
        "window_s": float(config.window_s),
        "motion": [float(config.motion_spacing_s), float(config.motion_gain)] if stream == "motion" else None,
        "augmentation": {"seed": config.augment_seed, **augment.settings()},
        "dtype": "float16",
        **({"focus": crop} if crop else {}),  # not there without: caches made before it was known stay valid
    }


def input_name(backbone: str, stream: str) -> str:
    """The name of a model input: which backbone and stream it takes."""
    return f"{backbone}.{stream}"


def folder_of(root: Path, record: Mapping[str, Any]) -> Path:
    """Where the features of that record lie."""
    return root / "features" / f"{record['backbone']}-{storage.stable_hash(record)}"


@dataclass(frozen=True)
class FeatureStore:
    """The cached features of one backbone and stream.

    `maker` extracts a clip's features again, given its id, when reading finds its entry missing or damaged.
    """

    folder: Path
    maker: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    index: VerifiedIndex = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", VerifiedIndex(self.folder))

    @classmethod
    def open(
        cls, root: Path, record: Mapping[str, Any], maker: Callable[[str], None] | None = None
    ) -> FeatureStore:
        """The store for that record below `<root>/features`, made if there is none."""
        folder = folder_of(root, record)
        if not (folder / RECORD_NAME).is_file():
            storage.write_json(folder / RECORD_NAME, record)
        return cls(folder, maker)

    def path(self, clip_id: str) -> Path:
        return self.folder / f"{clip_id}.npz"

    def variants(self, clip_id: str, *, verify: bool = True) -> frozenset[str] | None:
        """The whole variants of a clip: empty if there is no entry, None if the entry is damaged.

        `verify`: compare the checksums even of an entry that has not changed since that was last done.
        """
        path = self.path(clip_id)
        now = stamp(path)
        if now is None:
            return frozenset()
        if not verify and (noted := self.index.variants(clip_id, now)) is not None:
            return noted
        try:
            with zipfile.ZipFile(path) as archive:
                whole = archive.testzip() is None
                names = frozenset(n.removesuffix(".npy") for n in archive.namelist() if not n.startswith("_"))
        except _DAMAGE:
            whole = False
        if not whole:
            self.index.forget(clip_id)
            return None
        self.index.note(clip_id, now, names)
        return names

    def add(self, clip_id: str, values: Mapping[str, np.ndarray], engine: str) -> None:
        """Write variants, keeping those that the entry has already. `values`: name -> (T, C)."""
        new = {name: v.astype(np.float16) for name, v in values.items()}
        for name, value in new.items():
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{clip_id} {name}: the backbone gave values beyond float16: {np.abs(values[name]).max()}"
                )
        path = self.path(clip_id)
        with storage.locked(self.folder / LOCK_NAME):
            merged = self._whole_members(clip_id) | new
            made_by = _made_by(merged) | dict.fromkeys(new, engine)
            merged[_MADE_BY] = np.frombuffer(json.dumps(made_by, sort_keys=True).encode(), np.uint8)
            with storage.atomic_path(path) as temporary, temporary.open("wb") as f:
                np.savez(f, **merged)  # type: ignore[arg-type]  # numpy < 2.1 has no allow_pickle to tell apart
            now = stamp(path)
        if now is not None:
            self.index.note(clip_id, now, [name for name in merged if not name.startswith("_")])

    def read(self, clip_id: str, variants: Sequence[str]) -> np.ndarray:
        """Variants of a clip as (V, T, C) float16; an entry that is missing or damaged is made again.

        Raises UserError naming the entry if it cannot be made.
        """
        try:
            return self._stacked(clip_id, variants)
        except _DAMAGE as e:
            self.restore(clip_id, e)
        try:
            return self._stacked(clip_id, variants)
        except _DAMAGE as e:
            raise UserError(
                f"{self.path(clip_id)} was made again and is damaged again ({e}). Check the disk"
            ) from e

    def restore(self, clip_id: str, reason: object) -> None:
        """Make an entry again that reading found missing or damaged, and say so.

        Raises UserError naming it if this store has no maker; the next extraction then makes it.
        """
        self.index.forget(clip_id)
        self.index.save()
        found = f"the cached feature {self.path(clip_id)} is missing or damaged ({reason})"
        if self.maker is None:
            raise UserError(f"{found}. Run the same command again: it is found and made anew")
        log.warning("%s: made again", found)
        self.maker(clip_id)

    def _stacked(self, clip_id: str, variants: Sequence[str]) -> np.ndarray:
        members = self._members(clip_id, variants)
        return np.stack([members[v] for v in variants])

    def _whole_members(self, clip_id: str) -> dict[str, np.ndarray]:
        """All members of an entry; none if there is no entry, or a damaged one."""
        try:
            return self._members(clip_id)
        except _DAMAGE:
            return {}

    def made_by(self, clip_id: str) -> dict[str, str]:
        """The engine and precision that made each variant of a clip, by variant."""
        return _made_by(self._members(clip_id, [_MADE_BY]))

    def _members(self, clip_id: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Members by name, all by default; the checksum of each is checked before its bytes are interpreted."""
        with zipfile.ZipFile(self.path(clip_id)) as archive:
            if names is None:
                names = [n.removesuffix(".npy") for n in archive.namelist()]
            return {n: np.load(io.BytesIO(archive.read(f"{n}.npy")), allow_pickle=False) for n in names}


def _made_by(members: Mapping[str, np.ndarray]) -> dict[str, str]:
    return json.loads(members[_MADE_BY].tobytes()) if _MADE_BY in members else {}
