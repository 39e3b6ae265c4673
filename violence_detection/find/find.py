"""Step 1b: take the inventory, report it, check that the videos decode, and write inventory.json."""

from __future__ import annotations

import itertools
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets import catalogue, own_clips
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.find import combined_folders, inventory, kaggle_folders, offers
from violence_detection.find.config import FindConfig
from violence_detection.find.inventory import FoundDataset, Inventory
from violence_detection.system import console, disks, storage
from violence_detection.video import decode, video_files

log = logging.getLogger(__name__)

INVENTORY_NAME = "inventory.json"
FAILURES_NAME = "inventory_failures.csv"
#: A warning follows if one class has more than this many times the windows of the other.
_MAX_CLASS_RATIO = 5


class SearchConfig(Protocol):
    """The settings of finding and of combining that say where to search for data sets."""

    @property
    def data_root(self) -> Path: ...
    @property
    def roots(self) -> tuple[Path, ...]: ...
    @property
    def caches(self) -> bool: ...
    @property
    def catalogue(self) -> Path | None: ...
    @property
    def own(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...


@dataclass
class CutForecast:
    """What cutting the untrimmed videos gives.

    `failures`: {path, reason} of what cannot be cut. Among them, `refused` counts rows of tables of own clips, and
    `wrong_annotations` counts published annotations that cannot be read or belong to another version of the video; the
    rest are unreadable videos. `left_out`: {path, reason} of videos that give no window. `by_dataset`: the number of
    windows of each class, by data set. Paths are relative to the data root; those of files elsewhere are absolute.
    """

    failures: list[dict[str, str]] = field(default_factory=list)
    refused: int = 0
    wrong_annotations: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)
    by_dataset: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, dataset: str, label: str) -> None:
        """Count one window."""
        self.by_dataset.setdefault(dataset, Counter())[label] += 1


@dataclass(frozen=True)
class FindResult:
    """The result of finding. `summary`: the script's JSON line. `failures`: the rows of the failures file."""

    summary: dict[str, Any]
    failures: list[dict[str, str]]


def run(
    config: FindConfig,
    more_roots: Sequence[Path] = (),
    forecast: Callable[[Inventory], CutForecast] = lambda _: CutForecast(),
    more: Sequence[Any] = (),
) -> FindResult:
    """Find data sets, report them, check them if requested, and write `<data_root>/inventory.json`.

    `more_roots`: further folders to search. `forecast` computes what cutting the untrimmed videos would give. `more`:
    further configs, whose settings are kept in the commands that are suggested. Failures are written to
    `<data_root>/inventory_failures.csv`. Raises UserError if nothing is found or a class has no clips.
    """
    config = replace(config, roots=(*config.roots, *more_roots))
    found = discover(config, *more)
    disks.check_writable(config.data_root, "--data-root")
    report(found, config, *more)
    planned = forecast(found)
    report_windows(planned)
    storage.write_json(config.data_root / INVENTORY_NAME, as_json(found, planned))
    not_cut = [{**f, "path": str(config.data_root / f["path"])} for f in planned.failures]
    refused = [*found.unlisted, *found.failures, *not_cut]
    storage.write_failures(config.data_root / FAILURES_NAME, refused)  # even if what follows raises
    labels = Counter(c.label for c in found.clips)
    require_both_classes(sum(planned.by_dataset.values(), labels), found)
    known = {str(Path(f["path"]).absolute()) for f in not_cut}
    unreadable = check(_paths(found), config.workers) if config.check else []
    unreadable = [f for f in unreadable if str(Path(f["path"]).absolute()) not in known]
    for failure in unreadable:
        log.warning("damaged: %s: %s", failure["path"], failure["reason"])
    failures = [*refused, *unreadable]
    if unreadable:
        storage.write_failures(config.data_root / FAILURES_NAME, failures)
    return FindResult(_summary(found, planned, unreadable, config), failures)


def discover(config: SearchConfig, *more: Any) -> Inventory:
    """Take the inventory of the configured folders, of the caches unless they are left out, and of the own clips.

    `more`: further configs, whose settings are kept in the commands that are suggested. Raises UserError if nothing is
    found, if no clip of an own set can be used, or if step 2 made the folder of an own set.
    """
    datasets = catalogue.load(config.catalogue)
    asked = OwnClipsConfig(config.own, config.labels)
    own = own_clips.read_all(asked, datasets) if config.own or config.labels else ()
    combined_folders.refuse(own)
    for own_set in own:
        if not own_set.clips:
            line = step_2(config, *more)
            raise UserError(offers.nothing_usable(own_set, config.own, config.labels, line))
    roots = inventory.search_roots(config.data_root, config.roots, own)
    return inventory.discover(roots, kaggle_folders.folders() if config.caches else (), datasets, own)


def require_both_classes(counts: Mapping[str, int], found: Inventory) -> None:
    """Raise UserError if a class has no clips, so that nothing can be learnt. `counts`: number of clips by label."""
    missing = [label for label in CLASS_NAMES if not counts.get(label)]
    if not missing:
        return
    there = ", ".join(f"{n} {label} clips" for label, n in sorted(counts.items()) if n) or "none with a label"
    sets = ", ".join(sorted({d.dataset for d in found.datasets})) or "none"
    without = len(found.unlabelled) + sum(found.unknown.values())
    refused = "".join(f" {f['path']}: {f['reason']}." for f in found.unlisted)
    # if there are only own clips, there are no roots
    places = [*found.roots, *(d.root for d in found.datasets if d.own)]
    raise UserError(
        f"no {' and no '.join(missing)} clip below {', '.join(map(str, places))}. Found: {there} "
        f"(data sets: {sets}), and {without} videos without a label.{refused} Published data sets are recognised by "
        "their layout; your own clips are those that --own names, in a folder for each class (fight, nonfight, or as "
        "--labels says). Add clips of the missing class, or use the commands printed above: a model learns nothing "
        "from one class alone"
    )


def require_listed(found: Inventory) -> None:
    """Raise UserError if a folder within a data set cannot be listed, because its clips would be missing unnoticed."""
    sets = [(d.root, d.dataset) for d in found.datasets]
    for failure in found.unlisted:
        folder = Path(failure["path"])
        of = next((name for root, name in sets if folder.is_relative_to(root)), None)
        if of is not None:
            raise UserError(
                f"{folder}, a part of {of}: {failure['reason']}. Give this user permission to list it (chmod u+rx "
                f"{shlex.quote(str(folder))}), or move it out of the data set to leave it out"
            )


def step_2(config: SearchConfig, *more: Any) -> offers.Command:
    """The command line of step 2 with the same settings, for the commands that are suggested."""
    shared = replace(config, check=False) if isinstance(config, FindConfig) else config
    return offers.command("combine_all_datasets.py", shared, *more)


def check(paths: Iterable[Path], workers: int) -> list[dict[str, str]]:
    """Decode every file to its end, in parallel. Returns {path, reason} of the damaged ones, sorted by path.

    A file that decodes but ends long before its header says counts as damaged too.
    """
    todo = sorted(set(paths))
    failures = []
    with console.progress(total=len(todo), desc="check", unit="video") as bar:
        reasons = video_files.map_files(_reason, todo, workers, lambda path: path, _failed)
        for path, reason in reasons:
            if reason:
                failures.append({"path": str(path), "reason": reason})
            bar.update()
    return sorted(failures, key=lambda f: f["path"])


def _reason(path: Path) -> str:
    try:
        info = decode.probe(path)
    except UnreadableVideo as e:
        return e.reason
    except OSError as e:
        return video_files.cannot_be_read(path, e)
    return info.shortfall()


def _failed(_: Path, reason: str) -> str:
    return reason


def _paths(found: Inventory) -> list[Path]:
    return [p for d in found.datasets for p in (c.path for c in (*d.clips, *d.needs_cutting))]


def as_json(found: Inventory, planned: CutForecast) -> dict[str, Any]:
    """The inventory and what cutting would give, as the contents of inventory.json."""
    return {
        "roots": [str(r) for r in found.roots],
        "datasets": [_dataset_json(d) for d in found.datasets],
        "duplicate_trees": [{"copy": str(c), "kept": str(k)} for c, k in found.duplicate_trees],
        "unknown": {str(folder): count for folder, count in found.unknown.items()},
        "warnings": list(found.warnings),
        "windows": {key: dict(sorted(n.items())) for key, n in sorted(planned.by_dataset.items())},
        "not_cut": planned.left_out + planned.failures,
    }


def _dataset_json(found: FoundDataset) -> dict[str, Any]:
    return {
        "dataset": found.dataset,
        "root": str(found.root),
        "clips": found.counts(),
        "expected": dict(found.entry.clips) if found.entry else None,
        "source_groups": len({c.source_group for c in (*found.clips, *found.needs_cutting)}),
        "official_splits": dict(Counter(c.official_split for c in found.clips if c.official_split)),
        "unlabelled": [str(p) for p in found.unlabelled],
        "excluded": len(found.excluded),
        "needs_cutting": len(found.needs_cutting),
    }


def report(found: Inventory, config: SearchConfig, *more: Any) -> None:
    """Log what was found beside what was published, and for what is left out the commands that would include it."""
    log.info("%-20s %16s %16s  %s", "data set", "fight", "nonfight", "folder")
    for dataset in found.datasets:
        log.info("%-20s %16s %16s  %s", dataset.dataset, *_columns(dataset), dataset.root)
        for text, paths in (("without a label", dataset.unlabelled), ("of neither class", dataset.excluded)):
            if paths:
                log.warning("%s: %d videos %s, left out: %s ...", dataset.dataset, len(paths), text, paths[0])
    for copy, kept in found.duplicate_trees:
        log.info("%s is a copy of %s and is counted once", copy, kept)
    if found.unknown or found.unlabelled or config.own:
        for text in offers.texts(found, config.own, config.labels, step_2(config, *more)):
            log.warning("%s", text)
    for failure in (*found.unlisted, *found.failures):
        log.warning("left out: %s: %s", failure["path"], failure["reason"])
    for warning in found.warnings:
        log.warning("%s", warning)
    absent = [
        d.title
        for k, d in found.catalogue.items()
        if d.roadmap and k not in {f.dataset for f in found.datasets}
    ]
    if absent:
        log.info("data sets of the roadmap that were not found: %s", ", ".join(absent))


def _columns(dataset: FoundDataset) -> list[str]:
    """The table's columns fight and nonfight for one data set."""
    counts, uncut = dataset.counts(), Counter(c.label for c in dataset.needs_cutting)
    if dataset.entry is None:
        return [" + ".join([f"{counts[label]}", *([f"{uncut[label]} uncut"] if uncut[label] else [])])
                for label in ("fight", "nonfight")]  # fmt: skip
    if dataset.needs_cutting:
        return [f"{uncut[label]} uncut" for label in ("fight", "nonfight")]
    return [f"{counts[label]} of {dataset.entry.clips[label]}" for label in ("fight", "nonfight")]


def report_windows(planned: CutForecast) -> None:
    """Log how many clips the untrimmed videos give, and which videos give none and why."""
    for dataset, counts in sorted(planned.by_dataset.items()):
        fight, nonfight = (counts[label] for label in ("fight", "nonfight"))
        log.info("%s: cut into %d fight and %d nonfight clips", dataset, fight, nonfight)
        if max(fight, nonfight) > _MAX_CLASS_RATIO * min(fight, nonfight):
            log.warning("%s: one class has more than %d times the clips of the other, so the look of this data "
                        "set alone suggests the class; change --normal-windows and --windows-per-video",
                        dataset, _MAX_CLASS_RATIO)  # fmt: skip
    for reason, rows in itertools.groupby(
        sorted(planned.left_out + planned.failures, key=lambda r: (r["reason"], r["path"])),
        key=lambda r: r["reason"],
    ):
        first, *others = rows
        more = f" and {len(others)} more" if others else ""
        log.warning("not cut: %s%s: %s", first["path"], more, reason)


def _summary(
    found: Inventory, planned: CutForecast, failures: Sequence[dict[str, str]], config: FindConfig
) -> dict[str, Any]:
    datasets: dict[str, Counter[str]] = {}
    for dataset in found.datasets:
        datasets.setdefault(dataset.dataset, Counter()).update(
            {
                **dataset.counts(),
                "needs_cutting": len(dataset.needs_cutting),
                "unlabelled": len(dataset.unlabelled),
            }
        )
    labels = Counter(c.label for c in found.clips)
    return {
        "datasets": {key: dict(sorted(counts.items())) for key, counts in sorted(datasets.items())},
        **{label: labels[label] for label in CLASS_NAMES},
        "windows": {key: dict(sorted(n.items())) for key, n in sorted(planned.by_dataset.items())},
        "not_cut": len(planned.left_out),
        "unlabelled": len(found.unlabelled) + sum(found.unknown.values()),
        "excluded": sum(len(d.excluded) for d in found.datasets),
        "second_copies": len(found.ignored) + len(found.copied),
        "duplicate_trees": len(found.duplicate_trees),
        "checked": config.check,
        "wrong_rows": len(found.failures) + planned.refused,
        "wrong_annotations": planned.wrong_annotations,
        "unlisted_folders": len(found.unlisted),
        "unreadable": len(failures) + len(planned.failures) - planned.refused - planned.wrong_annotations,
        "inventory": str(config.data_root / INVENTORY_NAME),
    }
