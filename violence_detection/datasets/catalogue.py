"""The catalogue of data sets: where each comes from, how its folders are laid out, and what its paths mean.

The entries are in catalogue.toml beside this file, or in the file that --catalogue names; this module reads and checks
them. A rule's pattern is a regular expression for the whole POSIX path relative to the data set's root, with the suffix
in lower case. It is never searched for inside a path: NonViolence contains Violence, and `.avi` contains vi.
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
#: Label of paths that are known and deliberately belong to neither class, such as UCF-Crime's Arson.
EXCLUDE = "exclude"
#: Formats of temporal annotations. datasets.annotations has a reader for each.
ANNOTATION_FORMATS = ("ucf_crime_txt", "cctv_fights_json", "xd_violence_txt", "ubi_fights_csv")
#: Record that step 1 writes into a data set's folder once the download is complete; "dataset" in it is the key.
COMPLETION_RECORD = ".complete.json"
#: The fields that a source of each kind must have.
_NEEDED_OF_SOURCE = {"kaggle": ("slug", "file"), "url": ("url", "file"), "manual": ("instructions",)}
_KEY = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class DataSource:
    """One way to get the data set; an entry lists them in order of preference.

    A source of kind kaggle has a `slug`, one of kind url has a `url`, and one of kind manual has `instructions` and
    usually the `url` of the page. `file`: the archive's name on disk; manual sources need none.
    """

    kind: str
    slug: str = ""
    url: str = ""
    file: str = ""
    instructions: str = ""


@dataclass(frozen=True)
class LabelRule:
    """Gives the paths that match `pattern` a `label`: fight, nonfight or exclude."""

    pattern: re.Pattern[str]
    label: str


@dataclass(frozen=True)
class SplitRule:
    """Puts the paths that match `pattern` on a side of the published `split`: train or val."""

    pattern: re.Pattern[str]
    split: str


@dataclass(frozen=True)
class GroupRule:
    """How a clip's path names the source that the clip was cut from; datasets.source_groups applies it.

    The pattern has one of these named groups:

    - `group`: the source's id. With a `namespace` (youtube) it means the same video in every data set.
    - `number`, with `class`: each `block` consecutive numbers of a class count as one source.
    - `clip`: looked up in the file `list` at the data set's root, which `source_groups.read_clip_list` reads.
    - `title`: its first `title_characters` count, because the file name was cut off before the id.

    A rule with both `group` and `title` gives the full titles of which a cut-off one may be the beginning.
    """

    pattern: re.Pattern[str]
    namespace: str = ""
    block: int = 0
    list: str = ""
    title_characters: int = 0


@dataclass(frozen=True)
class AnnotationFile:
    """The file or folder with an untrimmed data set's temporal annotations, and its format.

    `also`: other names of the file, or its path in the archive that contains it.
    """

    format: str
    file: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """One entry of the catalogue.

    roadmap: whether it is downloaded without --datasets. archive_bytes, extracted_bytes: approximate disk space that
    it needs, packed and unpacked. clips: the published number of clips per class, or of videos if untrimmed. terms:
    shown before a download, and in model cards. citation: shown in model cards. notes: only for readers of the file.
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
    #: Files or folders that must exist below the data set's root, in addition to at least one labelled file.
    layout: tuple[str, ...] = ()
    #: Patterns of the published paths, for a data set whose label rules name only class folders, in which anybody's
    #: clips could be. Empty if the label rules alone identify the data set.
    names: tuple[re.Pattern[str], ...] = ()
    #: Paths below the root that are second copies of other files and are left out.
    ignore: tuple[re.Pattern[str], ...] = ()
    groups: tuple[GroupRule, ...] = ()
    splits: tuple[SplitRule, ...] = ()
    untrimmed: bool = False
    annotations: AnnotationFile | None = None
    #: The number of clips that the roadmap states, where it is wrong.
    roadmap_clips: int | None = None

    def label(self, relative: str) -> str | None:
        """The label of a path: fight, nonfight, exclude, or None if no rule matches it."""
        path = normalised(relative)
        return next((rule.label for rule in self.labels if rule.pattern.fullmatch(path)), None)

    @property
    def deepest(self) -> int:
        """The most path parts that a label rule names, but at least four, because `.*` may match any number."""
        return max((_parts(rule.pattern.pattern) for rule in self.labels), default=0)

    def official_split(self, relative: str) -> str:
        """The published side of a path: train, val, or empty if no rule matches it."""
        path = normalised(relative)
        return next((rule.split for rule in self.splits if rule.pattern.fullmatch(path)), "")

    def named(self, relative: str) -> bool:
        """Whether the path looks like a published one. Without `names` every path does."""
        path = normalised(relative)
        return not self.names or any(pattern.fullmatch(path) for pattern in self.names)

    def ignored(self, relative: str) -> bool:
        """Whether the path is a second copy that the data set itself contains of its other files."""
        path = normalised(relative)
        return any(pattern.fullmatch(path) for pattern in self.ignore)


def _parts(pattern: str) -> int:
    """The number of path parts that a pattern names, at least four. Slashes in character classes do not count."""
    return max(4, re.sub(r"\[\^?\]?[^\]]*\]", "", pattern).count("/") + 1)


@functools.lru_cache(maxsize=16)  # all data sets in turn ask for the same path
def normalised(relative: str) -> str:
    """The path with its suffix in lower case: `no1_xvid.AVI` becomes `no1_xvid.avi`. The rest keeps its case."""
    stem, dot, suffix = relative.rpartition(".")
    return relative if "/" in suffix else stem + dot + suffix.lower()


def load(path: Path | None = None) -> Mapping[str, Dataset]:
    """Load the catalogue at `path`, or the shipped one without it: entries by key, in the order of the file.

    Raises UserError if the file cannot be read or is not TOML, and otherwise one that names every wrong entry and
    field, with what was found and what is needed.
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
            f"cannot read the catalogue {path}: {e.strerror}. Name another file with --catalogue"
        ) from e
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"the catalogue {path} is not valid TOML: {e}. Correct that line") from e
    problems: list[str] = [] if entries else ["no entries; needed: a table [key] for each data set"]
    datasets = {key: _dataset(key, entry, problems) for key, entry in entries.items()}
    if problems:
        lines = "".join(f"\n  {p}" for p in problems)
        raise UserError(
            f"the catalogue {path} has errors:{lines}\nCorrect them; compare it with {CATALOGUE_PATH}"
        )
    return {key: dataset for key, dataset in datasets.items() if dataset is not None}


def _dataset(key: str, entry: Any, problems: list[str]) -> Dataset | None:
    fields = TableFields(f"[{key}]", entry, problems)
    if not _KEY.fullmatch(key):
        fields.refuse(
            f"the key {key!r}", "lower-case letters, digits and _, because folders are named after it"
        )
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
            "both if the data set has untrimmed videos, which are cut into clips; neither if it has clips",
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
    """The name of an archive, which is kept in the data set's own folder below downloads/. Raises ValueError."""
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
            f"a pattern without (?P<{missing[0]}>...)", f"the named group {missing[0]} for this kind of rule"
        )
    return fields.finish(GroupRule)


def _annotation_file(fields: TableFields) -> AnnotationFile | None:
    fields.take("format", table_fields.one_of(*ANNOTATION_FORMATS), " or ".join(ANNOTATION_FORMATS))
    fields.text("file")
    fields.take("also", table_fields.list_of(table_fields.text), "a list of names", optional=True)
    return fields.finish(AnnotationFile)


def _pattern(value: Any) -> re.Pattern[str]:
    """The compiled pattern. Raises ValueError or TypeError.

    {video} stands for any suffix of 2 to 4 characters: only video files are ever matched, so none need be listed.
    """
    try:
        return re.compile(table_fields.text(value).replace("{video}", "[a-z0-9]{2,4}"))
    except re.error as e:
        raise ValueError(str(e)) from e
