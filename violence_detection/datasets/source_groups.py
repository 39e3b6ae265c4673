"""Source groups, as file names and published lists tell them: which clips were cut from the same video.

A clip may have several keys, for example if it is listed under two recordings or its title was cut off before the id.
Clips that share any key share a source. `combine` later joins groups whose pictures show that they share footage.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from violence_detection.datasets.catalogue import Dataset, GroupRule, normalised

#: A cut-off title with fewer characters says too little to be recognised as the beginning of a full one.
_MIN_CUT_TITLE = 16
#: Keys of sources with a complete YouTube id, and with one that was cut to 8 characters (RWF-2000).
_WHOLE_ID = re.compile(r"youtube:[\w-]{11}")
_CUT_ID = re.compile(r"youtube:[\w-]{8}")
_YOUTUBE_ID = re.compile(r"(?:v=|youtu\.be/)([\w-]{11})")
_LISTED_CLIP = re.compile(r"((?:no)?fi\d+)\s*:.*")
_LISTED_RANGE = re.compile(r"((?:no)?fi)(\d+)\s*-\s*(?:no)?fi(\d+)\s*:\s*(.+)")


@dataclass
class SourceReader:
    """Reads the source keys of one data set's clips.

    `warnings`: published lists that are missing or do not name all clips.
    """

    dataset: Dataset
    root: Path
    warnings: list[str] = field(default_factory=list)
    _lists: dict[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    _unlisted: Counter[str] = field(default_factory=Counter)

    def keys(self, relatives: Sequence[str], labels: Sequence[str]) -> list[tuple[str, ...]]:
        """The keys of each clip, in order, from its path below the root and its label.

        A clip that no rule matches is a source of its own.
        """
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
                f"{self.dataset.key}: {self.root / name} does not name {count} of {len(keys)} clips, so it is "
                "unknown which of them share a source; those of each class count as one source"
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
                    f"{self.dataset.key}: {path} is missing, so it is unknown which clips share a source; "
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

    A line with a YouTube address is followed by the lines of its clips, `fi001: start - end`. A range of clips,
    `nofi062 - nofi076 : name`, comes from the collection `name`. A clip's own line outweighs a range; a clip in two
    ranges belongs to both. The ranges follow the last video's lines, and the list does not say whether they belong to
    that video, so to be safe they are joined with it.
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
    """The name of each clip's source group, from the keys of each clip.

    Keys that one clip has are joined, and so is a cut-off YouTube id with the complete ids that begin with it. A group
    is named after the one of its joined keys that `preferred_name` chooses.
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
    """The names, and for each complete YouTube id also its form that is cut to 8 characters."""
    return {own for name in names for own in (name, *([name[:-3]] if _WHOLE_ID.fullmatch(name) else []))}


def connected(n: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each of `n` numbers the smallest one that it is connected to by a pair or a chain of pairs, or itself."""
    from scipy.sparse import coo_array, csgraph

    i, j = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n, n))
    _, labels = csgraph.connected_components(graph, directed=False)
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return firsts[inverse].tolist()


def preferred_name(names: Iterable[str]) -> str:
    """The name of a joined group: YouTube ids before all others, complete ids before cut-off ones, then by text."""
    return min(names, key=lambda name: (not name.startswith("youtube:"), bool(_CUT_ID.fullmatch(name)), name))


def _continuations(title: str, full: Mapping[str, str]) -> set[str]:
    """The keys of the full titles that begin with a cut-off one; none if that is too short to say."""
    if len(title) < _MIN_CUT_TITLE:
        return set()
    return {key for whole, key in full.items() if whole.startswith(title)}
