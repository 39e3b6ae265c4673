"""The clips of combined_all as links, put there and taken away so that at every moment a whole manifest stands.

New links come first, then the manifest that lists them, then go the links that it does not list. `.links.json` names
every link that may stand there, from before it is made until it is gone. What else stands there is somebody's own: it
stays, and no stage reads it.
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
_SHOWN = 3
#: To which file systems round the time of a change, at most: that of FAT, which has no links.
_MTIME_STEP_NS = 2 * 10**9


def check_ours(combined: Path, records: Iterable[str]) -> None:
    """Raise UserError when files stand in the folder and none of the `records` that this suite leaves in its own."""
    if any((combined / name).is_file() for name in (LIST_NAME, *records)) or has_manifest(combined):
        return
    own = {locks.ONLY_ONE_NAME, locks.HOLDER_NAME}
    found = next((p for p in sorted(combined.rglob("*")) if p.name not in own and not _is_folder(p)), None)
    if found is not None:
        elsewhere = combined.absolute().with_name("my_clips")
        raise UserError(
            f"{combined} holds files, {found} for one, and nothing that says that combine_all_datasets.py made them. "
            f"Clips are put there and taken away by it, so it wants the folder for itself. Move yours away: "
            f"{shlex.join(['mv', str(combined), str(elsewhere)])}; clips of your own are taken in with "
            "--own NAME=FOLDER"
        )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def place(combined: Path, wanted: Mapping[str, Path], kind: str) -> str:
    """Make the links of `wanted` (path below the folder -> source), beside those that stand there.

    `kind` auto takes hard links, and where the file system refuses them symbolic links, then copies. Returns
    the kind that was used. Raises UserError when the asked kind is not possible.
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
                "Free space there, or choose another way with --link symlink or --link copy"
            ) from e
        return chosen
    raise AssertionError("no kind of link")


def stand(combined: Path, wanted: Mapping[str, Path], kind: str) -> bool:
    """Whether all links of `wanted` stand there, of this kind and of these sources: a folder that was copied holds
    links to the one that it was copied from, or copies where hard links were.
    """
    return all(_is_placed(combined / path, source.resolve(), kind) for path, source in wanted.items())


def remove_others(combined: Path, wanted: Iterable[str]) -> None:
    """Remove the links of earlier runs that are not `wanted`, and what killed runs have left; name what is not ours."""
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
        log.warning("not made by this script, so they stay, and in no manifest, so no stage reads them: %s%s. Your own "
                    "clips are taken in with --own NAME=FOLDER, the folder elsewhere", shown, more)  # fmt: skip


def _files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if not _is_folder(p))


def _ours(combined: Path) -> set[str]:
    """The links that earlier runs have made or were about to make: those listed, and those of the manifest.

    What this suite made before it kept a list stands in its manifest.
    """
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found.update(storage.read_json(combined / LIST_NAME)["links"])
    if has_manifest(combined):
        with contextlib.suppress(DamagedFile):  # of whose clips the list has the links
            found.update(row.get("path") or "" for row in storage.read_csv(combined / manifest.FILE_NAME))
    return {path for path in found if _is_link_path(path)}


def _is_link_path(path: str) -> bool:
    """Nothing else goes, whatever a list says that somebody has changed."""
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
    with contextlib.suppress(OSError):  # on a share of another user it stays as it is
        shutil.copystat(source, target)
    return True
