"""Place the clips of combined_all as links, so that at any moment every clip of the manifest exists.

New links are made first, then the manifest that lists them is written, then the links that it does not list are
removed. `.links.json` names every link that may exist, from before it is made until after it is removed. Any other file
there belongs to the user: it is kept, and no stage reads it.
"""

from __future__ import annotations

import contextlib
import filecmp
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from violence_detection.combine import manifest
from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import DamagedFile, UserError
from violence_detection.find.combined_folders import has_manifest
from violence_detection.system import locks, storage

log = logging.getLogger(__name__)

LIST_NAME = ".links.json"
#: Number of foreign files that a warning lists.
_SHOWN = 3
#: Coarsest step of modification times on any file system: that of FAT, which has no links, so clips are copied to it.
_MTIME_STEP_NS = 2 * 10**9


def check_ours(combined: Path, records: Iterable[str]) -> None:
    """Raise UserError if the folder contains files but no manifest and none of this suite's `records`."""
    if any((combined / name).is_file() for name in (LIST_NAME, *records)) or has_manifest(combined):
        return
    own = {locks.ONLY_ONE_NAME, locks.HOLDER_NAME}
    found = next((p for p in sorted(combined.rglob("*")) if p.name not in own and not _is_folder(p)), None)
    if found is not None:
        elsewhere = combined.absolute().with_name("my_clips")
        raise UserError(
            f"{combined} contains files, such as {found}, but no sign that combine_all_datasets.py made them. That "
            f"script adds and removes clips there, so it needs the folder to itself. Move your files away: "
            f"{shlex.join(['mv', str(combined), str(elsewhere)])}; to include your own clips, use "
            "--own NAME=FOLDER"
        )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def place(combined: Path, wanted: Mapping[str, Path], kind: str) -> str:
    """Make the links of `wanted` (path below the folder -> source); existing ones are kept.

    `kind` is hard, symlink, copy or auto, which tries hard links, then symbolic links, then copies. Returns the kind
    used. Raises UserError if the clips cannot be placed that way.
    """
    _write_list(combined, _ours(combined) | set(wanted))
    kinds = ("hard", "symlink", "copy") if kind == "auto" else (kind,)
    for position, chosen in enumerate(kinds):
        try:
            for side in manifest.SPLITS:
                for label in CLASS_NAMES:
                    (combined / side / label).mkdir(parents=True, exist_ok=True)
            for path, source in sorted(wanted.items()):
                _place_one(combined / path, source.resolve(), chosen)
        except OSError as e:
            if position + 1 < len(kinds):
                continue
            raise UserError(
                f"cannot place clips in {combined} ({chosen}): {e}. "
                "Free some space there, or choose another kind of link with --link symlink or --link copy"
            ) from e
        return chosen
    raise AssertionError("no kind of link")


def stand(combined: Path, wanted: Mapping[str, Path], kind: str) -> bool:
    """Tell whether all links of `wanted` exist, are of this kind and lead to these sources.

    In a folder that was copied elsewhere they may not: its links may lead to the original's clips, or be copies.
    """
    return all(_is_placed(combined / path, source.resolve(), kind) for path, source in wanted.items())


def remove_others(combined: Path, wanted: Iterable[str]) -> None:
    """Remove links of earlier runs that are not `wanted` and temporary files of killed runs; warn about foreign files.

    A foreign file is one in the class folders that is not `wanted` and that this suite did not make.
    """
    wanted = set(wanted)
    ours = _ours(combined)
    for path in sorted(ours):
        _temporary(combined / path).unlink(missing_ok=True)
        if path not in wanted:
            (combined / path).unlink(missing_ok=True)
    _write_list(combined, wanted)
    foreign = [p for side in manifest.SPLITS for p in _files_below(combined / side)]
    foreign = [p for p in foreign if p.relative_to(combined).as_posix() not in wanted]
    if foreign:
        shown = ", ".join(str(p) for p in foreign[:_SHOWN])
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        log.warning("files that this script did not make are kept, but they are not in the manifest, so no stage reads "
                    "them: %s%s. To include your own clips, use --own NAME=FOLDER, with the folder elsewhere",
                    shown, more)  # fmt: skip


def _files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if not _is_folder(p))


def _ours(combined: Path) -> set[str]:
    """The links that earlier runs made or were about to make: those listed in .links.json and in the manifest.

    The manifest is read because early versions of this suite wrote no list.
    """
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found.update(storage.read_json(combined / LIST_NAME)["links"])
    if has_manifest(combined):
        with contextlib.suppress(DamagedFile):  # the list has the links of its clips
            found.update(row.get("path") or "" for row in storage.read_csv(combined / manifest.FILE_NAME))
    return {path for path in found if _is_link_path(path)}


def _is_link_path(path: str) -> bool:
    """Tell whether a path may be one of a link: nothing else is removed, even if somebody has edited the list."""
    parts = PurePosixPath(path).parts
    return len(parts) == 3 and parts[0] in manifest.SPLITS and parts[1] in CLASS_NAMES and parts[2] != ".."


def _write_list(combined: Path, paths: Iterable[str]) -> None:
    storage.write_json(combined / LIST_NAME, {"links": sorted(paths)})


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")


def _place_one(target: Path, source: Path, kind: str) -> None:
    if _is_placed(target, source, kind):
        return
    temporary = _temporary(target)
    temporary.unlink(missing_ok=True)
    make: dict[str, Callable[[Path, Path], object]] = {
        "hard": os.link,
        "symlink": os.symlink,
        "copy": storage.copied,
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
    same_time = abs(here.st_mtime_ns - there.st_mtime_ns) <= _MTIME_STEP_NS
    if target.samefile(source) or here.st_size != there.st_size:
        return False
    if same_time:
        return True
    if not filecmp.cmp(target, source, shallow=False):
        return False
    # another user may own the file; then its contents are compared each time
    with contextlib.suppress(OSError):
        shutil.copystat(source, target)
    return True
