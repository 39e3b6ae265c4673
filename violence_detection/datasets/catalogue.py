"""The catalogue of data sets: where each comes from, how it is laid out, and what its paths mean.

The entries stand in catalogue.toml beside this file; this module types and checks them. A rule's pattern is a
regular expression for the whole POSIX path relative to the data set's own root, with the suffix in lower
case. It is never searched for inside a path: NonViolence contains Violence, `.avi` contains vi.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError

CATALOGUE_PATH = Path(__file__).with_name("catalogue.toml")
#: A path whose meaning is known and which is deliberately neither class (UCF-Crime's Arson, say).
EXCLUDE = "exclude"
SOURCE_KINDS = ("kaggle", "url", "manual")
_REQUIRED_GROUPS = ("group", "title", "number", "clip")


@dataclass(frozen=True)
class DataSource:
    """One way to get the data set; an entry lists them in order of preference.

    kaggle has `slug`, url has `url`, manual has `instructions` (and the `url` of the page). `file` is the
    archive's name on disk; manual sources have none.
    """

    kind: str
    slug: str = ""
    url: str = ""
    file: str = ""
    instructions: str = ""


@dataclass(frozen=True)
class LabelRule:
    """Paths that match `pattern` have `label`: fight, nonfight or exclude."""

    pattern: re.Pattern[str]
    label: str


@dataclass(frozen=True)
class SplitRule:
    """Paths that match `pattern` belong to the published `split`: train or val."""

    pattern: re.Pattern[str]
    split: str


@dataclass(frozen=True)
class GroupRule:
    """How a path names the source it was cut from; violence_detection.sources applies it.

    The pattern has one of these named groups: `group`, the source's id; `number` (with `class`), put into
    blocks of `block` neighbours; `clip`, looked up in the file `list` at the data set's root; `title`, of
    which the first `title_characters` count, because the file name was cut off before the id. Ids with a
    `namespace` (youtube) mean the same video in every data set. A rule with both `group` and `title` gives
    the full title that a cut-off one may be the beginning of.
    """

    pattern: re.Pattern[str]
    namespace: str = ""
    block: int = 0
    list: str = ""
    title_characters: int = 0


@dataclass(frozen=True)
class AnnotationFile:
    """Where an untrimmed data set keeps its temporal annotations, and in which format."""

    format: str
    file: str


@dataclass(frozen=True)
class Dataset:
    """One catalogue entry. Sizes are approximate; `clips` counts clips a class as published (or videos)."""

    key: str
    title: str
    roadmap: bool
    archive_bytes: int
    extracted_bytes: int
    clips: Mapping[str, int]
    licence: str
    terms: str
    citation: str
    notes: str
    sources: tuple[DataSource, ...]
    labels: tuple[LabelRule, ...]
    #: Files or folders that must stand below the data set's root, beside at least one labelled file.
    layout: tuple[str, ...] = ()
    #: Paths below the root that are second copies and are left out.
    ignore: tuple[re.Pattern[str], ...] = ()
    groups: tuple[GroupRule, ...] = ()
    splits: tuple[SplitRule, ...] = ()
    untrimmed: bool = False
    annotations: AnnotationFile | None = None
    #: The roadmap's own count, where it is wrong.
    roadmap_clips: int | None = None

    def label(self, relative: str) -> str | None:
        """fight, nonfight, exclude, or None for a path that no published rule explains."""
        path = normalised(relative)
        return next((rule.label for rule in self.labels if rule.pattern.fullmatch(path)), None)

    def official_split(self, relative: str) -> str:
        """train, val, or empty where the data set publishes no split."""
        path = normalised(relative)
        return next((rule.split for rule in self.splits if rule.pattern.fullmatch(path)), "")

    def ignored(self, relative: str) -> bool:
        """Whether the path is a published second copy of other files of the data set."""
        path = normalised(relative)
        return any(pattern.fullmatch(path) for pattern in self.ignore)


@functools.lru_cache(maxsize=16)  # all data sets ask about one path in turn
def normalised(relative: str) -> str:
    """The path with its suffix in lower case: `no1_xvid.AVI` is `no1_xvid.avi`; folders keep their case."""
    stem, dot, suffix = relative.rpartition(".")
    return relative if "/" in suffix else stem + dot + suffix.lower()


@functools.cache
def load(path: Path = CATALOGUE_PATH) -> dict[str, Dataset]:
    """Read and check the catalogue. Keys in the order of the file.

    Raises UserError naming the file, the entry and the field that is wrong.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"cannot read the catalogue {path}: {e}. Restore the file or mend the line") from e
    return {key: _dataset(path, key, entry) for key, entry in entries.items()}


def get(key: str) -> Dataset:
    """One entry by its key. Raises UserError that lists the keys."""
    datasets = load()
    if key not in datasets:
        raise UserError(f"no data set {key!r} in the catalogue; there are: {', '.join(datasets)}")
    return datasets[key]


def _dataset(path: Path, key: str, entry: Mapping[str, Any]) -> Dataset:
    try:
        values = dict(entry)
        values["sources"] = tuple(DataSource(**s) for s in entry["sources"])
        values["labels"] = _rules(LabelRule, entry["labels"])
        values["groups"] = _rules(GroupRule, entry.get("groups", ()))
        values["splits"] = _rules(SplitRule, entry.get("splits", ()))
        values["ignore"] = tuple(_compile(p) for p in entry.get("ignore", ()))
        values["layout"] = tuple(entry.get("layout", ()))
        values["annotations"] = AnnotationFile(**entry["annotations"]) if "annotations" in entry else None
        dataset = Dataset(key=key, **values)
        _check(dataset)
    except (KeyError, TypeError, ValueError, re.error) as e:
        raise UserError(f"{path}: entry [{key}] is wrong: {e!r}. Compare it with its neighbours") from e
    return dataset


R = TypeVar("R", LabelRule, GroupRule, SplitRule)


def _rules(kind: type[R], tables: Iterable[Mapping[str, Any]]) -> tuple[R, ...]:
    return tuple(kind(**{**table, "pattern": _compile(table["pattern"])}) for table in tables)


def _compile(pattern: str) -> re.Pattern[str]:
    """Only video files are ever matched, so {video} need not list the suffixes."""
    return re.compile(pattern.replace("{video}", "[a-z0-9]{2,4}"))


def _check(dataset: Dataset) -> None:
    for source in dataset.sources:
        needed = {"kaggle": source.slug and source.file, "url": source.url and source.file}
        if source.kind not in SOURCE_KINDS or not needed.get(source.kind, source.instructions):
            raise ValueError(f"source {source}")
    for rule in dataset.labels:
        if rule.label not in (*CLASS_NAMES, EXCLUDE):
            raise ValueError(f"label {rule.label!r}")
    for split in dataset.splits:
        if split.split not in ("train", "val"):
            raise ValueError(f"split {split.split!r}")
    for group in dataset.groups:
        if not set(group.pattern.groupindex) & set(_REQUIRED_GROUPS):
            raise ValueError(f"group pattern {group.pattern.pattern!r} names none of {_REQUIRED_GROUPS}")
    if not dataset.sources or not dataset.labels or set(dataset.clips) != set(CLASS_NAMES):
        raise ValueError("sources, labels and clips = {fight, nonfight} are required")
    if dataset.untrimmed != (dataset.annotations is not None):
        raise ValueError("an untrimmed data set needs annotations, and only such a one")
