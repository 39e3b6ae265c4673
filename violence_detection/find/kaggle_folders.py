"""Find data sets that other programs have downloaded from Kaggle: the caches of kagglehub and of the kaggle client.

- kagglehub: `$KAGGLEHUB_CACHE`, else `~/.cache/kagglehub`. Below it is `datasets/<owner>/<name>/versions/<n>`, and
  `datasets/<owner>/<name>/<n>.complete` once version n is complete.
- kaggle client: the folder set by `kaggle config set -n path -v FOLDER`, stored as `path` in kaggle.json. Below it is
  `datasets/<owner>/<name>`. Without this setting, the client uses the current folder, which is not searched.
- Kaggle's own notebooks: data sets attached to a notebook are in /kaggle/input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from violence_detection.system import settings

NOTEBOOK_INPUT = Path("/kaggle/input")


def folders() -> list[Path]:
    """The folders to search in all caches that exist, sorted.

    For kagglehub, the newest version of each data set; for the others, each folder right below the cache.
    """
    found = [*_newest_versions(_kagglehub() / "datasets")]
    for parent in filter(None, (_kaggle_downloads(), NOTEBOOK_INPUT)):
        found += [p for p in _listed(parent) if p.is_dir()]
    return sorted(found)


def _kagglehub() -> Path:
    return settings.folder_of("KAGGLEHUB_CACHE", "~/.cache/kagglehub")


def _newest_versions(datasets: Path) -> Iterable[Path]:
    """The newest complete version of each data set, or the newest version if none is marked as complete."""
    for owner in _listed(datasets):
        for name in _listed(owner):
            numbers = [int(p.name) for p in _listed(name / "versions") if p.name.isdecimal() and p.is_dir()]
            if numbers:
                whole = [n for n in numbers if (name / f"{n}.complete").exists()]
                yield name / "versions" / str(max(whole or numbers))


def _kaggle_downloads() -> Path | None:
    """The data sets in the kaggle client's download folder; None without that setting (`path`, the only one read)."""
    try:
        path = json.loads(settings.kaggle_json().read_text(encoding="utf-8")).get("path")
    except (OSError, ValueError, AttributeError):
        return None  # no settings, or settings that the client cannot read either
    return settings.expanded(path) / "datasets" if isinstance(path, str) and path else None


def _listed(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; none if it is not a folder or cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
