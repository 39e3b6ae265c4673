"""Source groups as names and published lists tell them: which clips were cut from the same video.

A clip may have several keys (a file listed under two recordings, a title cut off before the id); clips that
share any key share a source. Near-duplicates found in the pictures join further groups later, in `combine`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from violence_detection.datasets.catalogue import Dataset, GroupRule, normalised

#: A cut-off title shorter than this says too little to be the beginning of another.
_MIN_CUT_TITLE = 16
#: Sources by their published id, and by one that was cut off (RWF-2000).
_WHOLE_ID = re.compile(r"youtube:[\w-]{11}")
_CUT_ID = re.compile(r"youtube:[\w-]{8}")
_YOUTUBE_ID = re.compile(r"(?:v=|youtu\.be/)([\w-]{11})")
_LISTED_CLIP = re.compile(r"((?:no)?fi\d+)\s*:.*")
_LISTED_RANGE = re.compile(r"((?:no)?fi)(\d+)\s*-\s*(?:no)?fi(\d+)\s*:\s*(.+)")


@dataclass
class SourceReader:
    """Reads the source keys of one data set's clips, given its root folder.

    `warnings` says where a published list is missing or does not name a clip.
    """

    dataset: Dataset
    root: Path
    warnings: list[str] = field(default_factory=list)
    _lists: dict[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    _unlisted: Counter[str] = field(default_factory=Counter)

    def keys(self, relatives: Sequence[str], labels: Sequence[str]) -> list[tuple[str, ...]]:
        """The keys of each clip, in order. Without a rule that matches, a clip is a source of its own."""
        keys: list[tuple[str, ...]] = []
        cut: list[tuple[int, str]] = []
        full: dict[str, str] = {}
        for position, (relative, label) in enumerate(zip(relatives, labels, strict=True)):
            rule, match = self._match(relative)
            if rule is None or match is None:
                keys.append((self._name("", relative),))
                continue
            keys.append(self._keys(rule, match, label))
            if rule.title_characters:
                cut.append((position, match["title"]))
            elif "title" in match.re.groupindex:
                full[f"{match['title']}__{match['group']}"] = keys[-1][0]
        for position, title in cut:
            keys[position] += tuple(sorted(_continuations(title, full)))
        for name, count in self._unlisted.items():
            self.warnings.append(
                f"{self.dataset.key}: {self.root / name} does not name {count} of {len(keys)} clips, so nothing tells "
                "which of them share a source; those of a class count as one source"
            )
        self._unlisted.clear()
        return keys

    def _match(self, relative: str) -> tuple[GroupRule | None, re.Match[str] | None]:
        path = normalised(relative)
        for rule in self.dataset.groups:
            if match := rule.pattern.fullmatch(path):
                return rule, match
        return None, None

    def _keys(self, rule: GroupRule, match: re.Match[str], label: str) -> tuple[str, ...]:
        if rule.list:
            return self._listed(rule, match["clip"], label)
        if rule.title_characters:
            return (self._name("", match["title"][: rule.title_characters]),)
        if rule.block:
            block = (int(match["number"]) - 1) // rule.block
            return (self._name("", f"{match['class']}-block{block}"),)
        return (self._name(rule.namespace, match["group"]),)

    def _listed(self, rule: GroupRule, clip: str, label: str) -> tuple[str, ...]:
        if rule.list not in self._lists:
            path = self.root / rule.list
            if not path.is_file():
                self.warnings.append(
                    f"{self.dataset.key}: {path} is missing, so nothing tells which clips share a source; "
                    "each class counts as one source. Download the data set again"
                )
            self._lists[rule.list] = read_clip_list(path) if path.is_file() else {}
        if names := self._lists[rule.list].get(clip):
            return tuple(
                self._name(rule.namespace if re.fullmatch(r"[\w-]{11}", n) else "", n) for n in names
            )
        if (self.root / rule.list).is_file():
            self._unlisted[rule.list] += 1
        return (self._name("", f"unlisted-{label}"),)

    def _name(self, namespace: str, name: str) -> str:
        return f"{namespace or self.dataset.key}:{name}"


def read_clip_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Parse Surveillance Camera Fight's videos.txt: clip name -> the sources it is listed under.

    A line with a YouTube address is followed by `fi001: start - end` lines; ranges `nofi062 - nofi076 : name`
    name a collection. A clip's own line outweighs a range; a clip in two ranges belongs to both. Ranges stand
    below the last video's lines without saying whether they belong to it; joining them with it is the safe
    reading.
    """
    own: dict[str, list[str]] = {}
    ranged: dict[str, list[str]] = {}
    video = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = line.strip()
        if match := _YOUTUBE_ID.search(line):
            video = match[1]
        elif match := _LISTED_RANGE.fullmatch(line):
            for number in range(int(match[2]), int(match[3]) + 1):
                ranged.setdefault(f"{match[1]}{number:0{len(match[2])}d}", []).extend(
                    filter(None, (video, match[4]))
                )
        elif (match := _LISTED_CLIP.fullmatch(line)) and video:
            own.setdefault(match[1], []).append(video)
    return {clip: tuple(dict.fromkeys(names)) for clip, names in (ranged | own).items()}


def group_names(keys: Sequence[Iterable[str]]) -> list[str]:
    """Name of each clip's source group: the preferred one of all keys in its joined set.

    An id that was cut off is joined with those that begin with it.
    """
    numbers: dict[str, int] = {}
    clips = [[numbers.setdefault(key, len(numbers)) for key in clip_keys] for clip_keys in keys]
    pairs = [(clip[0], other) for clip in clips for other in clip[1:]]
    wholes = [key for key in numbers if _WHOLE_ID.fullmatch(key)]
    pairs += [(numbers[key], numbers[key[:-3]]) for key in wholes if key[:-3] in numbers]
    sets = connected(len(numbers), pairs)
    members: dict[int, list[str]] = defaultdict(list)
    for key, number in numbers.items():
        members[sets[number]].append(key)
    names = {k: preferred_name(group) for k, group in members.items()}
    return [names[sets[clip[0]]] for clip in clips]


def also_called(names: Iterable[str]) -> set[str]:
    """The names, and those that sources have where their published id was cut off."""
    return {own for name in names for own in (name, *([name[:-3]] if _WHOLE_ID.fullmatch(name) else []))}


def connected(n: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each of n things the smallest number among those it is joined with, by a pair or a chain of pairs."""
    from scipy.sparse import coo_array, csgraph

    i, j = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n, n))
    _, labels = csgraph.connected_components(graph, directed=False)
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return firsts[inverse].tolist()


def preferred_name(names: Iterable[str]) -> str:
    """The name of a joined group: its first in order, ids of published videos before all others, whole ids first."""
    return min(names, key=lambda name: (not name.startswith("youtube:"), bool(_CUT_ID.fullmatch(name)), name))


def _continuations(title: str, full: Mapping[str, str]) -> set[str]:
    if len(title) < _MIN_CUT_TITLE:
        return set()
    return {key for whole, key in full.items() if whole.startswith(title)}
