"""The catalogue of data sets: where each comes from, how it is laid out, and what its paths mean.

The entries stand in catalogue.toml beside this file, or in a file that --catalogue names; this module types and
checks them. A rule's pattern is a regular expression for the whole POSIX path relative to the data set's own root, with
the suffix in lower case. It is never searched for inside a path: NonViolence contains Violence, `.avi` contains vi.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets import table_fields
from violence_detection.datasets.table_fields import TableFields
from violence_detection.errors import UserError
from violence_detection.system import storage

CATALOGUE_PATH = Path(__file__).with_name("catalogue.toml")
#: A path whose meaning is known and which is deliberately neither class (UCF-Crime's Arson, say).
EXCLUDE = "exclude"
#: How temporal annotations are written; datasets.annotations reads them.
ANNOTATION_FORMATS = ("ucf_crime_txt", "cctv_fights_json", "xd_violence_txt", "ubi_fights_csv")
#: What step 1 writes into the folder of a data set that it has downloaded whole; it holds the set's key as "dataset".
COMPLETION_RECORD = ".complete.json"
#: The fields that each kind of source must have.
_NEEDED_OF_SOURCE = {"kaggle": ("slug", "file"), "url": ("url", "file"), "manual": ("instructions",)}
_KEY = re.compile(r"[a-z0-9_]+")


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
    """How a path names the source it was cut from; datasets.source_groups applies it.

    The pattern has one of these named groups: `group`, the source's id; `number` (with `class`), put into
    blocks of `block` neighbours; `clip`, looked up in the file `list` at the data set's root
    (in the one format that `source_groups.read_clip_list` reads); `title`, of
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
    """Where an untrimmed data set keeps its temporal annotations, and in which format.

    `also`: what else the file is called, or its path in the archive that it comes in.
    """

    format: str
    file: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """One catalogue entry. Sizes are approximate; `clips` counts clips a class as published (or videos).

    roadmap: whether it is downloaded where nothing else is asked for. terms, citation, notes: what who downloads it is
    told. archive_bytes, extracted_bytes: room that it needs, packed and unpacked.
    """

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
    #: What published paths look like, where the label rules are no more than class folders that anybody's clips may
    #: stand in. Without it the label rules themselves say enough.
    names: tuple[re.Pattern[str], ...] = ()
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

    @property
    def deepest(self) -> int:
        """Path parts of its longest label rule. One that says `.*` may match any number; four are looked at."""
        return max((_parts(rule.pattern.pattern) for rule in self.labels), default=0)

    def official_split(self, relative: str) -> str:
        """train, val, or empty where the data set publishes no split."""
        path = normalised(relative)
        return next((rule.split for rule in self.splits if rule.pattern.fullmatch(path)), "")

    def named(self, relative: str) -> bool:
        """Whether the path looks like a published one."""
        path = normalised(relative)
        return not self.names or any(pattern.fullmatch(path) for pattern in self.names)

    def ignored(self, relative: str) -> bool:
        """Whether the path is a published second copy of other files of the data set."""
        path = normalised(relative)
        return any(pattern.fullmatch(path) for pattern in self.ignore)


def _parts(pattern: str) -> int:
    """Path parts that a pattern speaks of, at least four."""
    return max(4, re.sub(r"\[\^?\]?[^\]]*\]", "", pattern).count("/") + 1)


@functools.lru_cache(maxsize=16)  # all data sets ask about one path in turn
def normalised(relative: str) -> str:
    """The path with its suffix in lower case: `no1_xvid.AVI` is `no1_xvid.avi`; folders keep their case."""
    stem, dot, suffix = relative.rpartition(".")
    return relative if "/" in suffix else stem + dot + suffix.lower()


def load(path: Path | None = None) -> Mapping[str, Dataset]:
    """The catalogue that `path` holds, else the shipped one. Keys in the order of the file.

    Raises UserError that names every entry and field that is wrong, with what was found and what is needed.
    """
    return _read(path) if path is not None else _shipped()


@functools.cache
def _shipped() -> Mapping[str, Dataset]:
    return _read(CATALOGUE_PATH)


def _read(path: Path) -> Mapping[str, Dataset]:
    try:
        entries = tomllib.loads(storage.read_text(path))
    except OSError as e:
        raise UserError(
            f"cannot read the catalogue {path}: {e.strerror}. Give another file with --catalogue"
        ) from e
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"the catalogue {path} is no TOML file: {e}. Mend the line") from e
    problems: list[str] = [] if entries else ["no entry; needed: a table [key] a data set"]
    datasets = {key: _dataset(key, entry, problems) for key, entry in entries.items()}
    if problems:
        lines = "".join(f"\n  {p}" for p in problems)
        raise UserError(f"the catalogue {path} is wrong:{lines}\nCompare it with {CATALOGUE_PATH}")
    return {key: dataset for key, dataset in datasets.items() if dataset is not None}


def _dataset(key: str, entry: Any, problems: list[str]) -> Dataset | None:
    fields = TableFields(f"[{key}]", entry, problems)
    if not _KEY.fullmatch(key):
        fields.refuse(f"the key {key!r}", "small letters, digits and _; it names folders")
    fields.text("title", "licence", "terms", "citation", "notes")
    fields.take("roadmap", table_fields.flag, "true or false")
    for field in ("archive_bytes", "extracted_bytes"):
        fields.take(field, table_fields.count, "a whole number of bytes")
    fields.take("roadmap_clips", table_fields.count, "a whole number of clips", optional=True)
    fields.take("clips", _clips, "{ fight = NUMBER, nonfight = NUMBER }")
    fields.many("sources", _source, "a list of ways to get it, such as { kind = ..., ... }")
    fields.many("labels", _label_rule, "a list of { pattern = ..., label = ... }")
    fields.many("groups", _group_rule, "a list of { pattern = ..., ... }", optional=True)
    fields.many("splits", _split_rule, "a list of { pattern = ..., split = ... }", optional=True)
    fields.take("layout", table_fields.list_of(table_fields.text), "a list of paths", optional=True)
    for field in ("ignore", "names"):
        fields.take(field, table_fields.list_of(_pattern), "a list of regular expressions", optional=True)
    untrimmed = fields.take("untrimmed", table_fields.flag, "true or false", optional=True)
    fields.one("annotations", _annotation_file)
    if bool(untrimmed) != fields.has("annotations"):
        fields.refuse(
            "untrimmed without annotations" if untrimmed else "annotations without untrimmed = true",
            "both for long videos that are cut into clips, neither for clips",
        )
    return fields.finish(Dataset, key=key)


def _clips(value: Any) -> Mapping[str, int]:
    if not isinstance(value, dict) or set(value) != set(CLASS_NAMES):
        raise TypeError
    return {label: table_fields.count(n) for label, n in value.items()}


def _source(fields: TableFields) -> DataSource | None:
    kind = fields.take("kind", table_fields.one_of(*_NEEDED_OF_SOURCE), " or ".join(_NEEDED_OF_SOURCE))
    needed = _NEEDED_OF_SOURCE.get(kind, ())
    for field, accept, what in (
        ("slug", _slug, "owner/name"),
        ("url", table_fields.text, "text"),
        ("file", _file_name, "the name of a file, without folders"),
        ("instructions", table_fields.text, "text"),
    ):
        fields.take(field, accept, f"{what}, for a source of kind {kind}", optional=field not in needed)
    return fields.finish(DataSource)


def _slug(value: Any) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", table_fields.text(value)):
        raise ValueError
    return str(value)


def _file_name(value: Any) -> str:
    """It stands in the data set's own folder below downloads/."""
    if not re.fullmatch(r"(?!\.\.?$)[^/\\\x00-\x1f]+", table_fields.text(value)):
        raise ValueError
    return str(value)


def _label_rule(fields: TableFields) -> LabelRule | None:
    labels = (*CLASS_NAMES, EXCLUDE)
    fields.take("pattern", _pattern, "a regular expression")
    fields.take("label", table_fields.one_of(*labels), " or ".join(labels))
    return fields.finish(LabelRule)


def _split_rule(fields: TableFields) -> SplitRule | None:
    fields.take("pattern", _pattern, "a regular expression")
    fields.take("split", table_fields.one_of("train", "val"), "train or val")
    return fields.finish(SplitRule)


def _group_rule(fields: TableFields) -> GroupRule | None:
    pattern = fields.take("pattern", _pattern, "a regular expression")
    fields.text("namespace", optional=True)
    named = fields.take("list", table_fields.text, "the name of a file", optional=True)
    block = fields.take("block", table_fields.count, "a whole number of clips", optional=True)
    cut = fields.take("title_characters", table_fields.count, "a whole number of characters", optional=True)
    needed = ("clip",) if named else ("title",) if cut else ("class", "number") if block else ("group",)
    if pattern and (missing := [g for g in needed if g not in pattern.groupindex]):
        fields.refuse(
            f"a pattern without (?P<{missing[0]}>...)", f"the named group {missing[0]}, for such a rule"
        )
    return fields.finish(GroupRule)


def _annotation_file(fields: TableFields) -> AnnotationFile | None:
    fields.take("format", table_fields.one_of(*ANNOTATION_FORMATS), " or ".join(ANNOTATION_FORMATS))
    fields.text("file")
    fields.take("also", table_fields.list_of(table_fields.text), "a list of names", optional=True)
    return fields.finish(AnnotationFile)


def _pattern(value: Any) -> re.Pattern[str]:
    """Only video files are ever matched, so {video} need not list the suffixes."""
    try:
        return re.compile(table_fields.text(value).replace("{video}", "[a-z0-9]{2,4}"))
    except re.error as e:
        raise ValueError(str(e)) from e
