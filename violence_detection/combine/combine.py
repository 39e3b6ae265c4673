"""Step 2: combine everything found into one train/val set, with no clip twice and no source on both sides."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.combine import (
    exclusions,
    links,
    manifest,
    outcome,
    same_videos,
    scan,
    second_look,
    shared_footage,
    split,
    val_ledger,
)
from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.combine.cut import cutting
from violence_detection.combine.dedupe import Deduplicated, Dropped, ScannedClip, deduplicate, scanned
from violence_detection.combine.exclusions import ExclusionList
from violence_detection.datasets import catalogue
from violence_detection.errors import DamagedFile, UserError
from violence_detection.find import find
from violence_detection.find.inventory import ClipFile, Inventory, source_path
from violence_detection.system import locks, storage
from violence_detection.system.figures import plural
from violence_detection.video import video_files

log = logging.getLogger(__name__)

RECORD_NAME = manifest.RECORD_NAME
#: Increase this whenever the same files would give a different manifest, so that earlier results are made again.
VERSION = 5
#: Key in the record: how the clips were placed (hard, symlink or copy).
_PLACED_KEY = "placed"


@dataclass(frozen=True)
class CombineResult:
    """`summary`: the fields of the JSON line that the script prints. `failures`: the rows of failures.csv."""

    summary: dict[str, Any]
    failures: list[dict[str, str]]


def run(config: CombineConfig, cut_config: CutConfig | None = None) -> CombineResult:
    """Find, cut, scan, deduplicate, split and place all clips below the data root; write manifest and record.

    If neither the inputs nor the outputs have changed since an earlier run, its result is returned. Raises UserError if
    nothing is found or usable, if a class has no clips, if a data set's folder cannot be listed, if another run is
    working in combined_all, or if combined_all contains files that this suite did not put there.
    """
    listed = exclusions.read(config.exclude) if config.exclude else None
    combined = config.data_root / "combined_all"
    links.check_ours(combined, (RECORD_NAME, scan.JOURNAL_NAME, val_ledger.FILE_NAME))
    cut_config = cut_config or CutConfig()
    found = find.discover(config, cut_config)
    with locks.only_one(combined, "combine_all_datasets.py"):
        return _combine(found, combined, config, cut_config, listed)


def _combine(
    found: Inventory,
    combined: Path,
    config: CombineConfig,
    cut_config: CutConfig,
    listed: ExclusionList | None,
) -> CombineResult:
    find.report(found, config, cut_config)
    find.require_both_classes(_possible(found), found)
    find.require_listed(found)
    cut = cutting.cut(found, cut_config, config.data_root, config.workers)
    if any(dataset.needs_cutting for dataset in found.datasets):
        find.report_windows(cut)
    cut.say_unused(config.data_root)
    clips = {source_path(clip.path, config.data_root): clip for clip in [*found.clips, *cut.clips]}
    find.require_both_classes(Counter(c.label for c in clips.values()), found)
    left_out = _left_out(found, config.data_root) + cut.left_out
    not_found = [
        {**f, "path": source_path(Path(f["path"]), config.data_root)}
        for f in (*found.unlisted, *found.failures)
    ]
    one_source = same_videos.shared_sources(found)
    named = [*left_out, *cut.failures, *not_found, *cut.cut_short]
    copies = [
        {"path": source_path(p, config.data_root), "reason": "second copy"}
        for p in (*found.ignored, *found.copied)
    ]
    inputs = _inputs(clips, one_source, [*named, *copies], config, listed)
    if (result := _done_before(combined, config.data_root, inputs, left_out)) is not None:
        log.info("nothing has changed since %s was written", combined / RECORD_NAME)
        if cut.left_over:
            cutting.remove(cut.left_over)
        outcome.say(result.summary, config.val_fraction)
        return result
    scans = scan.scan_all(
        {name: c.path for name, c in clips.items()}, combined / scan.JOURNAL_NAME, config.workers
    )
    put_off: list[str] = []
    unique, failures = _usable(clips, scans, found, one_source, combined, config, put_off)
    failures += cut.failures + not_found
    rows, dropped = divide(unique, config)
    find.require_both_classes(Counter(r["label"] for r in rows), found)
    excluded: list[dict[str, Any]] = []
    if listed:  # after the split, so that the other clips keep their sides
        rows, excluded = listed.take_out(rows, _all_names(clips, scans), _copies(clips, scans, dropped))
        listed.require_both_classes(rows)
    cut_short = cut.cut_short + _cut_short(scans)
    before = _earlier_rows(combined)
    placed = _publish(combined, rows, config)
    _say_what_moved(before, rows)
    _say_what_left(before, rows, found)
    if cut.left_over:
        cutting.remove(cut.left_over)
    _write_tables(combined, dropped, failures, left_out, cut_short)
    _write_excluded(combined, listed, excluded, rows)
    files = outcome.of_files(found, cut, scans, rows, dropped, excluded, config.data_root)
    summary = outcome.summarised(rows, dropped, unique, failures, found, cut, cut_short, files, combined)
    result = CombineResult({**summary, "excluded_by_list": len(excluded)}, failures)
    outcome.say(result.summary, config.val_fraction)
    record = _record(config, result, combined, inputs, put_off, placed)
    if listed:
        record["exclude"] = listed.record(excluded)
    storage.write_json(combined / RECORD_NAME, record)
    return result


def _earlier_rows(combined: Path) -> list[dict[str, str]]:
    """Read the rows of the existing manifest; empty if there is none or it is damaged."""
    path = combined / manifest.FILE_NAME
    if not path.is_file():
        return []
    try:
        return storage.read_csv(path)
    except DamagedFile:
        log.warning(
            "%s cannot be read and is made again; whether clips change sides is therefore unknown", path
        )
        return []


def _say_what_moved(before: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Warn if clips are on the other side of the split than in the earlier manifest."""
    sides = {r.get("clip_id"): r.get("split") for r in before}
    moved = Counter((sides.get(r["clip_id"]), r["split"]) for r in rows)
    if n := moved[split.VAL, split.TRAIN]:
        log.warning(
            "%d clips of the earlier val are in train now, because all clips were divided again. Models trained from "
            "now on see them in training, and figures on the earlier val and on this one are of different clips", n,
        )  # fmt: skip
    if n := moved[split.TRAIN, split.VAL]:
        log.warning(
            "%d clips of the earlier train are in val now, because all clips were divided again. Models trained before "
            "have seen them: train those again before measuring them on this val", n,
        )  # fmt: skip


def _say_what_left(
    before: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, Any]], found: Inventory
) -> None:
    """Warn about data sets of the earlier manifest that were not found this time; a flag may have been forgotten."""
    there = {r["dataset"] for r in rows} | {d.dataset for d in found.datasets}
    for name, n in sorted(Counter(r.get("dataset") or "" for r in before).items()):
        if not name or name in there:
            continue
        log.warning(
            "the earlier manifest had %s of %s, and this one has none: %s",
            plural(n, "clip"),
            name,
            "the data set was not found. If it is elsewhere, name its folder with --roots in every run"
            if name in found.catalogue
            else "your own clips are included only in runs that name them with --own, and data sets of another "
            "catalogue only in runs that name it with --catalogue",
        )


def _all_names(clips: Mapping[str, ClipFile], scans: Mapping[str, scan.Scan]) -> set[str]:
    """Return the source paths of all labelled clips, and the ids of the readable ones, kept or not."""
    ids = {scanned(name, clips[name], s).clip_id for name, s in scans.items() if not s.reason}
    return ids | set(clips)


def _copies(
    clips: Mapping[str, ClipFile], scans: Mapping[str, scan.Scan], dropped: Sequence[Dropped]
) -> dict[str, str]:
    """Map each dropped copy's source path, and the id of each near duplicate, to the source path of the kept clip."""
    found = {}
    for copy in dropped:
        # the other kinds are not copies: they only share a source or footage
        if copy.kind in ("exact", "near"):
            found[copy.dropped] = copy.kept
            if copy.kind == "near":
                found[scanned(copy.dropped, clips[copy.dropped], scans[copy.dropped]).clip_id] = copy.kept
    return found


def _write_excluded(
    combined: Path,
    listed: ExclusionList | None,
    excluded: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write excluded.csv; without a list, remove it and warn about clips of it that are included again."""
    path = combined / exclusions.FILE_NAME
    if listed:
        storage.write_csv(path, exclusions.COLUMNS, excluded)
    elif path.is_file():
        there = {r["clip_id"] for r in rows}
        again = [r["source_path"] or "" for r in storage.read_csv(path) if r.get("clip_id") in there]
        if again:
            log.warning(
                "%d clips that an earlier run left out with --exclude are included again, because this run has no "
                "--exclude: %s",
                len(again),
                exclusions.some_of(again),
            )
        path.unlink()


def _possible(found: Inventory) -> Counter[str]:
    """Count the clips per class that may come, before anything is cut.

    A published untrimmed video of a fight may give both classes, so it counts for both.
    """
    counts = Counter(c.label for c in found.clips)
    for dataset in found.datasets:
        counts.update(c.label for c in dataset.needs_cutting)
        if dataset.entry is not None:
            counts["nonfight"] += sum(c.label == "fight" for c in dataset.needs_cutting)
    return counts


def _usable(
    clips: Mapping[str, ClipFile],
    scans: Mapping[str, scan.Scan],
    found: Inventory,
    one_source: Sequence[tuple[str, str]],
    combined: Path,
    config: CombineConfig,
    put_off: list[str],
) -> tuple[Deduplicated, list[dict[str, str]]]:
    """Deduplicate the readable clips; also return the failures. Raises UserError if no clip is left.

    Appends to `put_off` the reasons why pairs of near duplicates could not be compared this time.
    """
    failures = [{"path": n, "reason": s.reason} for n, s in scans.items() if s.reason]
    candidates = [scanned(name, clips[name], s) for name, s in scans.items() if not s.reason]
    if not candidates:
        raise UserError(
            f"no usable clip below {config.data_root}: {len(scans)} labelled, {len(failures)} of them unreadable, and "
            f"{len(found.unlabelled)} unlabelled. Run find_all_datasets.py --check to see what it reports"
        )

    def confirm(pairs: Sequence[tuple[ScannedClip, ScannedClip]]) -> list[bool]:
        journal = combined / second_look.JOURNAL_NAME
        return second_look.confirm(pairs, config.data_root, journal, config.workers, put_off)

    unique = deduplicate(candidates, not config.keep_near, confirm, one_source)
    failures += unique.failures()
    if not unique.kept:
        raise UserError(
            f"every clip below {config.data_root} exists under both labels. Check which data sets were mixed up"
        )
    return unique, failures


def _inputs(
    clips: Mapping[str, ClipFile],
    one_source: Sequence[tuple[str, str]],
    named: Sequence[Mapping[str, str]],
    config: CombineConfig,
    listed: ExclusionList | None,
) -> str:
    """Hash everything that the result depends on: files, labels, sources, settings, catalogue, code versions."""
    return storage.stable_hash(
        [
            *([sorted(listed.names)] if listed else []),
            *([one_source] if one_source else []),
            [
                (n, scan.journal_key(n, c.path), c.label, c.source_group, c.official_split)
                for n, c in sorted(clips.items())
            ],
            [(r["path"], r["reason"]) for r in named],
            [config.seed, config.val_fraction, config.link, scan.VERSION, VERSION],
            [config.keep_near, second_look.VERSION],
            storage.sha256_file(config.catalogue or catalogue.CATALOGUE_PATH),
        ],
        digits=32,
    )


def _done_before(
    combined: Path, data_root: Path, inputs: str, left_out: Sequence[Mapping[str, str]]
) -> CombineResult | None:
    """Return the result of an earlier run on the same inputs, or None if there is none or anything has to be redone.

    It has to be if an output is missing or was changed, or if a failure of that run may not occur again.
    """
    record_path, manifest_path = combined / RECORD_NAME, combined / manifest.FILE_NAME
    if not all(path.is_file() for path in (record_path, manifest_path, combined / manifest.BY_TIME_NAME)):
        return None
    try:
        record = storage.read_json(record_path)
        if not isinstance(record, dict):
            raise ValueError(f"{record_path} is not a record of this script")
    except ValueError as e:
        log.warning("%s. It is made again", str(e).partition(". ")[0])
        return None
    if (
        record.get("inputs") != inputs
        or "wrong_annotations" not in record["summary"]
        or record[manifest.SHA256_KEY] != storage.sha256_file(manifest_path)
    ):
        return None
    tables = {
        "duplicates.csv": True,
        "failures.csv": bool(record["failures"]),
        "unlabelled.csv": bool(left_out),
        "warnings.csv": bool(record["summary"]["cut_short"]),
        exclusions.FILE_NAME: "exclude" in record,
    }
    if any(has_rows and not (combined / name).is_file() for name, has_rows in tables.items()):
        return None
    if record.get("put_off") or any(
        video_files.may_pass(failure["reason"]) for failure in record["failures"]
    ):
        return None
    rows = storage.read_csv(manifest_path)
    wanted = {row["path"]: data_root / row["source_path"] for row in rows}
    # an earlier version gave one path to two clips whose ids begin with the same digits
    if len(wanted) < len(rows):
        return None
    if not links.stand(combined, wanted, record.get(_PLACED_KEY, "")):
        return None
    return CombineResult({**record["summary"], "manifest": str(manifest_path)}, record["failures"])


def divide(unique: Deduplicated, config: CombineConfig) -> tuple[list[dict[str, Any]], list[Dropped]]:
    """Split the kept clips. Returns the manifest rows, sorted by path, and all dropped clips, sorted.

    Clips that share footage across sources are put into train, or dropped from it, see shared_footage.
    """
    paths = {c.clip_id: c.source_path for c in unique.kept}
    one_place: set[str] = set()
    while True:  # each pass divides the clips outside `one_place` as if they were the only ones
        items = [
            split.Item(c.clip_id, c.source_group, (c.dataset, c.label), c.official_split)
            for c in unique.kept
            if c.source_path not in one_place
        ]
        assignment = split.assign(items, config.seed, config.val_fraction)
        sides = {paths[clip_id]: side for clip_id, side in assignment.split.items()}
        tied = shared_footage.rather_train(unique, sides)
        one_place |= set(tied)
        if not tied:
            break
    sides |= dict.fromkeys(one_place, split.TRAIN)
    dropped = unique.dropped + [Dropped(paths[a], paths[b], "source") for a, b in assignment.dropped.items()]
    of_val = shared_footage.to_drop(unique, sides)
    dropped += [Dropped(train, val, "footage") for train, val in of_val.items()]
    there = sides.keys() - of_val.keys()
    rows = _rows([c for c in unique.kept if c.source_path in there], sides)
    return sorted(rows, key=lambda r: r["path"]), sorted(dropped)


def _rows(clips: Sequence[ScannedClip], sides: Mapping[str, str]) -> list[dict[str, Any]]:
    """Make the clips' manifest rows, each with a unique path: with all digits of the id where 8 are not enough."""

    def path(clip: ScannedClip, digits: int) -> str:
        name = manifest.clip_name(clip.dataset, clip.source_path, clip.clip_id, digits)
        return f"{sides[clip.source_path]}/{clip.label}/{name}"

    paths = [path(clip, 8) for clip in clips]
    often = Counter(paths)
    return [
        manifest.row(clip, sides[clip.source_path], short if often[short] == 1 else path(clip, 16))
        for clip, short in zip(clips, paths, strict=True)
    ]


def _left_out(found: Inventory, data_root: Path) -> list[dict[str, str]]:
    """List the videos that do not become clips: {path, reason}."""
    rows = []
    for dataset in found.datasets:
        unlabelled = f"no published rule of {dataset.dataset} gives this file a label"
        if dataset.own:
            unlabelled = f"lies in no class folder of {dataset.dataset}; --labels says what a folder means"
        for paths, reason in (
            (dataset.unlabelled, unlabelled),
            (dataset.excluded, f"a category of {dataset.dataset} that is neither class"),
        ):
            rows += [{"path": source_path(p, data_root), "reason": reason} for p in paths]
    rows += [
        {"path": source_path(folder, data_root), "reason": f"{count} videos in no known layout"}
        for folder, count in found.unknown.items()
    ]
    return rows


def _cut_short(scans: Mapping[str, scan.Scan]) -> list[dict[str, str]]:
    """List the clips that decode only in part: {path, reason}. They are kept, and listed in warnings.csv."""
    return [{"path": name, "reason": s.shortfall} for name, s in scans.items() if s.shortfall]


def _publish(combined: Path, rows: Sequence[Mapping[str, Any]], config: CombineConfig) -> str:
    """Place the clips and write the manifest, in an order such that all clips of the manifest exist at any moment.

    Returns how the clips were placed: hard, symlink or copy.
    """
    wanted = {r["path"]: config.data_root / r["source_path"] for r in rows}
    kind = links.place(combined, wanted, config.link)
    by_time = [r for r in rows if r["by_time"]]
    manifest.make_way(combined)
    storage.write_csv(combined / manifest.BY_TIME_NAME, ("clip_id", "path"), by_time)
    storage.write_csv(combined / manifest.FILE_NAME, manifest.COLUMNS, rows)
    links.remove_others(combined, wanted)
    log.info("%d clips placed in %s (%s)", len(rows), combined, kind)
    return kind


def _write_tables(
    combined: Path,
    dropped: Sequence[Dropped],
    failures: Sequence[Mapping[str, str]],
    left_out: Sequence[Mapping[str, str]],
    cut_short: Sequence[Mapping[str, str]],
) -> None:
    """Write failures.csv, unlabelled.csv, warnings.csv and duplicates.csv."""
    storage.write_failures(combined / "failures.csv", failures)
    storage.write_failures(combined / "unlabelled.csv", left_out)
    storage.write_failures(combined / "warnings.csv", cut_short)
    storage.write_csv(
        combined / "duplicates.csv",
        ("source_path", "kept_source_path", "kind"),
        ({"source_path": d.dropped, "kept_source_path": d.kept, "kind": d.kind} for d in dropped),
    )


def _record(
    config: CombineConfig,
    result: CombineResult,
    combined: Path,
    inputs: str,
    put_off: Sequence[str],
    placed: str,
) -> dict[str, Any]:
    return {
        "config": {
            "seed": config.seed,
            "val_fraction": config.val_fraction,
            "link": config.link,
            "keep_near": config.keep_near,
            "own": list(config.own),
            "labels": list(config.labels),
        },
        "catalogue": storage.sha256_file(config.catalogue or catalogue.CATALOGUE_PATH)[:12],
        "inputs": inputs,
        manifest.SHA256_KEY: storage.sha256_file(combined / manifest.FILE_NAME),
        "summary": {k: v for k, v in result.summary.items() if k != "manifest"},
        "failures": result.failures,
        "put_off": sum(map(video_files.may_pass, put_off)),
        _PLACED_KEY: placed,
    }
