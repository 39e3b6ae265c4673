"""The feature cache: one file a clip and stream, one member a variant, a checksum in each member.

    <root>/features/<backbone>-<confighash>/record.json       everything that changes the values
    <root>/features/<backbone>-<confighash>/<clip_id>.npz     members v0, v1, ..., t1, ...: (T, C) float16
Each stream has a folder of its own, since its record differs. A member of the zip carries a CRC-32, so a damaged
entry is noticed when it is read; it is then named and made again.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection import augment, backbones, storage
from violence_detection.config import FeatureConfig
from violence_detection.errors import UserError

_FORMAT = 3
RECORD_NAME = "record.json"
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError)


def record(config: FeatureConfig, backbone: str, stream: str, weights: Path) -> dict[str, Any]:
    """Everything that changes a feature's value, and so the cache's key."""
    config = backbones.settings(config, backbone)
    return {
        "format": _FORMAT,
        "backbone": backbone,
        "weights_sha256": storage.sha256_file(weights),
        "input_size": backbones.get(backbone).input_size,
        "stream": stream,
        "frames": config.frames,
        "window_s": float(config.window_s),
        "motion": [float(config.motion_spacing_s), float(config.motion_gain)] if stream == "motion" else None,
        "augmentation": {"seed": config.augment_seed, **augment.settings()},
        "dtype": "float16",
    }


def input_name(backbone: str, stream: str) -> str:
    """The name of a model input: which backbone and stream it takes."""
    return f"{backbone}.{stream}"


@dataclass(frozen=True)
class FeatureStore:
    """The cached features of one backbone and stream."""

    folder: Path

    @classmethod
    def open(cls, root: Path, record: Mapping[str, Any]) -> FeatureStore:
        """The store for that record below `<root>/features`, made if there is none."""
        folder = root / "features" / f"{record['backbone']}-{storage.stable_hash(record)}"
        if not (folder / RECORD_NAME).is_file():
            storage.write_json(folder / RECORD_NAME, record)
        return cls(folder)

    def path(self, clip_id: str) -> Path:
        return self.folder / f"{clip_id}.npz"

    def variants(self, clip_id: str) -> frozenset[str] | None:
        """The whole variants of a clip: empty if there is no entry, None if the entry is damaged."""
        path = self.path(clip_id)
        if not path.is_file():
            return frozenset()
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return None
                return frozenset(n.removesuffix(".npy") for n in archive.namelist() if not n.startswith("_"))
        except _DAMAGE:
            return None

    def add(self, clip_id: str, values: Mapping[str, np.ndarray], engine: str) -> None:
        """Write variants, keeping those that the entry has already. `values`: name -> (T, C)."""
        merged: dict[str, np.ndarray] = {}
        if self.variants(clip_id):
            merged = self._members(clip_id)
        merged |= {name: v.astype(np.float16) for name, v in values.items()}
        merged["_engine"] = np.array(engine)
        for name, value in values.items():
            if not np.isfinite(merged[name]).all():
                raise ValueError(
                    f"{clip_id} {name}: the backbone gave values beyond float16: {np.abs(value).max()}"
                )
        with storage.atomic_path(self.path(clip_id)) as temporary, temporary.open("wb") as f:
            np.savez(f, allow_pickle=False, **merged)

    def read(self, clip_id: str, variants: Sequence[str]) -> np.ndarray:
        """Variants of a clip as (V, T, C) float16. Raises UserError naming a missing or damaged entry."""
        try:
            members = self._members(clip_id, variants)
            return np.stack([members[v] for v in variants])
        except _DAMAGE as e:
            raise UserError(
                f"the cached feature {self.path(clip_id)} is missing or damaged ({e}). "
                "Run the same command again: it is found and made anew"
            ) from e

    def engine(self, clip_id: str) -> str:
        """The engine and precision that last wrote a clip's entry."""
        return str(self._members(clip_id, ["_engine"])["_engine"])

    def _members(self, clip_id: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Members by name, all by default; the checksum of each is checked before its bytes are interpreted."""
        with zipfile.ZipFile(self.path(clip_id)) as archive:
            if names is None:
                names = [n.removesuffix(".npy") for n in archive.namelist()]
            return {n: np.load(io.BytesIO(archive.read(f"{n}.npy")), allow_pickle=False) for n in names}


def clean_temporary(folder: Path) -> None:
    """Remove what writers that no longer live have left behind (temporary names hold the process id)."""
    for path in sorted(folder.glob(".*.tmp.npz")):
        pid = path.name.split(".")[-3].split("-")[0]
        if not (pid.isdigit() and _alive(int(pid))):
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
