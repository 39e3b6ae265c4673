"""Put clips into combined_all without copying 80 GB: hard links, else symbolic links, else copies."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from violence_detection.errors import UserError

_UNSAFE = re.compile(r"[^\w.-]+")
_STEM_CHARACTERS = 60


def clip_name(dataset: str, source_path: str, clip_id: str) -> str:
    """A readable name that no other clip has: `<dataset>__<stem>__<first half of the id><suffix>`."""
    path = Path(source_path)
    stem = _UNSAFE.sub("_", path.stem)[:_STEM_CHARACTERS]
    return f"{dataset}__{stem}__{clip_id[:8]}{path.suffix.lower()}"


def place(wanted: Mapping[Path, Path], folders: list[Path], kind: str) -> str:
    """Make `wanted` (target -> source) the whole content of `folders`; what stood there before and is not
    wanted goes.

    `kind` auto takes hard links, and where the file system refuses them symbolic links, then copies. Returns
    the kind that was used. Raises UserError when the asked kind is not possible.
    """
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old not in wanted and (old.is_symlink() or old.is_file()):
                old.unlink()
    kinds = ("hard", "symlink", "copy") if kind == "auto" else (kind,)
    for position, chosen in enumerate(kinds):
        try:
            for target, source in sorted(wanted.items()):
                _place_one(target, source.resolve(), chosen)
        except OSError as e:
            if position + 1 < len(kinds):
                continue
            raise UserError(
                f"cannot place clips in {folders[0].parent.parent} ({chosen}): {e}. "
                "Free space there, or choose another way with --link symlink or --link copy"
            ) from e
        return chosen
    raise AssertionError("no kind of link")


def _place_one(target: Path, source: Path, kind: str) -> None:
    if _is_placed(target, source, kind):
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    make: dict[str, Callable[[Path, Path], object]] = {
        "hard": os.link,
        "symlink": os.symlink,
        "copy": shutil.copy2,
    }
    try:
        make[kind](source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_placed(target: Path, source: Path, kind: str) -> bool:
    if kind == "symlink":
        return target.is_symlink() and target.readlink() == source
    if target.is_symlink() or not target.exists():
        return False
    if kind == "hard":
        return target.samefile(source)
    here, there = target.stat(), source.stat()
    return not target.samefile(source) and (here.st_size, here.st_mtime_ns) == (
        there.st_size,
        there.st_mtime_ns,
    )
