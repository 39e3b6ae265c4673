"""Where other programs have put data sets from Kaggle: the caches of kagglehub and of the kaggle client.

- kagglehub: `$KAGGLEHUB_CACHE`, else `~/.cache/kagglehub`; below it `datasets/<owner>/<name>/versions/<n>`, and
  `datasets/<owner>/<name>/<n>.complete` once version n is whole.
- kaggle client: the folder set by `kaggle config set -n path -v FOLDER`, which it keeps as `path` in kaggle.json;
  below it `datasets/<owner>/<name>`. Without the setting it uses the current folder, which is not searched.
- Kaggle's own notebooks: data sets attached to one stand in /kaggle/input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from violence_detection.system import settings

NOTEBOOK_INPUT = Path("/kaggle/input")


def folders() -> list[Path]:
    """The folders of data sets in all caches that exist, sorted; of each kagglehub data set the newest version."""
    found = [*_newest_versions(_kagglehub() / "datasets")]
    for parent in filter(None, (_kaggle_downloads(), NOTEBOOK_INPUT)):
        found += [p for p in _listed(parent) if p.is_dir()]
    return sorted(found)


def _kagglehub() -> Path:
    return settings.folder_of("KAGGLEHUB_CACHE", "~/.cache/kagglehub")


def _newest_versions(datasets: Path) -> Iterable[Path]:
    """Of each data set the newest whole version; the newest at all where none is marked as whole."""
    for owner in _listed(datasets):
        for name in _listed(owner):
            numbers = [int(p.name) for p in _listed(name / "versions") if p.name.isdecimal() and p.is_dir()]
            if numbers:
                whole = [n for n in numbers if (name / f"{n}.complete").exists()]
                yield name / "versions" / str(max(whole or numbers))


def _kaggle_downloads() -> Path | None:
    """The kaggle client's download folder, where one is set; of its settings only `path` is looked at."""
    try:
        path = json.loads(settings.kaggle_json().read_text(encoding="utf-8")).get("path")
    except (OSError, ValueError, AttributeError):
        return None  # no settings, or none that the client itself could read
    return settings.expanded(path) / "datasets" if isinstance(path, str) and path else None


def _listed(folder: Path) -> list[Path]:
    """What stands in a folder, sorted; nothing where it is none or may not be looked into."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
