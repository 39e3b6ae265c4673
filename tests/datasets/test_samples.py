"""Generated sample data: published layouts, planted faults, and classes that only motion tells apart."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from violence_detection.datasets.generated import marker, samples
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.system import storage
from violence_detection.video import decode


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> samples.SampleSet:
    return samples.render_samples(tmp_path_factory.mktemp("samples"), sources=8, clips_per_source=4, seed=3)


def files_below(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_every_file_is_named_in_the_returned_set_and_lies_in_a_published_layout(
    rendered: samples.SampleSet,
) -> None:
    layouts = [
        r"raw/rwf_2000/RWF-2000/(train|val)/(Fight|NonFight)/[\w-]{11}_\d+\.avi",
        r"raw/surveillance_fight/(fight/fi|noFight/nofi)\d{3}\.mp4",
        r"raw/hockey_fights/data/(fi|no)\d+_xvid\.avi",
    ]
    found = [f for f in files_below(rendered.root) if f.startswith("raw/") and not f.endswith("videos.txt")]
    named = {*rendered.clips, rendered.exact_duplicate[1], rendered.reencoded_duplicate[1], rendered.broken}
    assert set(found) == named
    assert set(rendered.video_ids) == named
    for path in found:
        assert sum(bool(re.fullmatch(layout, path)) for layout in layouts) == 1, path
    for layout in layouts:
        assert any(re.fullmatch(layout, path) for path in found)


def test_rwf_2000_has_both_official_splits_and_no_source_in_both(rendered: samples.SampleSet) -> None:
    by_split: dict[str, set[str]] = {"train": set(), "val": set()}
    for path in rendered.clips:
        if match := re.search(r"RWF-2000/(train|val)/\w+/(.{11})_\d+\.avi", path):
            by_split[match[1]].add(match[2])
    assert by_split["train"]
    assert by_split["val"]
    assert not by_split["train"] & by_split["val"]


def test_videos_txt_lists_each_surveillance_clip_under_its_video(rendered: samples.SampleSet) -> None:
    text = (rendered.root / "raw/surveillance_fight/videos.txt").read_text()
    listed: dict[str, str] = {}
    video_id = ""
    for line in text.splitlines():
        if line.startswith("https"):
            match = re.fullmatch(r"https://www\.youtube\.com/watch\?v=([\w-]{11})", line)
            assert match, line
            video_id = match[1]
        else:
            match = re.fullmatch(r"((?:no)?fi\d{3}): \d+\.\d\d\.\d\d - \d+\.\d\d\.\d\d", line)
            assert match, line
            listed[match[1]] = video_id
    expected = {Path(p).stem: v for p, v in rendered.video_ids.items() if "surveillance_fight" in p}
    assert listed == expected


def test_every_clip_decodes_and_is_small_and_short(rendered: samples.SampleSet) -> None:
    for path in (*rendered.clips, rendered.exact_duplicate[1], rendered.reencoded_duplicate[1]):
        info = decode.probe(rendered.root / path)
        assert 20 <= info.fps <= 25, path
        assert 1.7 <= info.duration_s <= 2.4, path
        assert info.width <= 320, path
        assert info.height <= 240, path


def test_the_exact_duplicate_is_a_byte_copy_under_another_number(rendered: samples.SampleSet) -> None:
    original, copy = (rendered.root / p for p in rendered.exact_duplicate)
    assert original.name != copy.name
    assert storage.sha256_file(original) == storage.sha256_file(copy)


def test_the_reencoded_duplicate_shows_the_same_in_another_file(rendered: samples.SampleSet) -> None:
    original, copy = rendered.reencoded_duplicate
    assert "/val/" in original
    assert "/train/" in copy  # the leak that combining must find
    a, b = decode.probe(rendered.root / original), decode.probe(rendered.root / copy)
    assert a.n_frames == b.n_frames
    assert a.codec != b.codec
    assert a.width != b.width
    frames = [
        decode.read(rendered.root / p, lambda _: [10], lambda f: cv2.resize(f, (64, 48)))[1][10].astype(float)
        for p in (original, copy)
    ]
    assert np.abs(frames[0] - frames[1]).mean() < 6


def test_the_broken_file_is_an_unreadable_video(rendered: samples.SampleSet) -> None:
    assert (rendered.root / rendered.broken).stat().st_size > 1000
    with pytest.raises(UnreadableVideo):
        decode.probe(rendered.root / rendered.broken)


def test_the_pixels_depend_on_the_seed_alone() -> None:
    first, again, other = (samples.plan_clips(4, 2, seed)[0] for seed in (5, 5, 6))
    frames, _ = samples.scene_frames(first)
    assert np.array_equal(frames, samples.scene_frames(again)[0])
    assert frames.shape != samples.scene_frames(other)[0].shape or not np.array_equal(
        frames, samples.scene_frames(other)[0]
    )


def test_format_and_brightness_do_not_tell_the_classes_apart_but_motion_does() -> None:
    plan = samples.plan_clips(20, 5, 0)
    assert abs(sum(c.label == "fight" for c in plan) - 50) <= 1
    per_source: dict[str, set[str]] = {}
    for clip in plan:
        per_source.setdefault(clip.source_id, set()).add(clip.label)
    assert all(labels == {"fight", "nonfight"} for labels in per_source.values())
    shapes: dict[str, set[tuple[int, ...]]] = {}
    brightness: dict[str, list[float]] = {"fight": [], "nonfight": []}
    lengths: dict[str, list[float]] = {"fight": [], "nonfight": []}
    motion: dict[str, list[float]] = {"fight": [], "nonfight": []}
    for clip in plan[::2] + plan[1::6]:
        frames, fps = samples.scene_frames(clip)
        shapes.setdefault(clip.source_id, set()).add((*frames.shape[1:3], int(fps)))
        brightness[clip.label].append(float(frames[::8].mean()))
        lengths[clip.label].append(len(frames) / fps)
        grey = np.stack([cv2.GaussianBlur(cv2.resize(f, (80, 60)), (0, 0), 1.0) for f in frames]).mean(axis=3)
        change = np.abs(np.diff(grey, axis=0))
        motion[clip.label].append(float(np.percentile(change, 99.5)) / float(np.std(grey)))
    assert all(len(s) == 1 for s in shapes.values())
    assert abs(np.mean(lengths["fight"]) - np.mean(lengths["nonfight"])) < 0.1
    assert abs(np.mean(brightness["fight"]) - np.mean(brightness["nonfight"])) < 20
    assert np.median(motion["fight"]) > 1.2 * np.median(motion["nonfight"])


def test_the_root_is_marked_as_generated(rendered: samples.SampleSet, tmp_path: Path) -> None:
    record = json.loads((rendered.root / "SAMPLE_DATA.json").read_text())
    assert record["generated"] is True
    assert record["complete"] is True
    assert marker.is_generated(rendered.root)
    assert marker.is_generated(rendered.root / "combined_all" / "val")
    assert not marker.is_generated(tmp_path)


def test_an_interrupted_rendering_is_completed_by_the_same_call(tmp_path: Path) -> None:
    whole = samples.render_samples(tmp_path, sources=4, clips_per_source=2, seed=0)
    hashes = {f: storage.sha256_file(tmp_path / f) for f in files_below(tmp_path)}
    for path in (whole.clips[0], whole.clips[-1], whole.reencoded_duplicate[1]):
        (tmp_path / path).unlink()
    half = f".fi11_xvid.{storage.machine()}.99999999-1.tmp.avi"  # there is no process with this id
    (tmp_path / "raw/hockey_fights/data" / half).write_bytes(b"half a clip")
    storage.write_json(
        tmp_path / marker.MARKER_NAME, {"generated": True, "sources": 4, "clips_per_source": 2, "seed": 0}
    )
    assert samples.render_samples(tmp_path, sources=4, clips_per_source=2, seed=0) == whole
    assert {f: storage.sha256_file(tmp_path / f) for f in files_below(tmp_path)} == hashes


def test_generated_clips_are_never_mixed_with_other_data(tmp_path: Path) -> None:
    (tmp_path / "raw" / "rwf_2000").mkdir(parents=True)
    with pytest.raises(UserError, match="not generated"):
        samples.render_samples(tmp_path, sources=4, clips_per_source=2, seed=0)
    assert not marker.is_generated(tmp_path)


def test_too_few_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 4 sources"):
        samples.render_samples(tmp_path, sources=3, clips_per_source=2, seed=0)


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = (
        "import sys, violence_detection.datasets.generated.samples; "
        "print([m for m in ('numpy', 'cv2', 'pandas', 'tensorflow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_command_line_prints_one_json_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "violence_detection.datasets.generated", "--output", str(tmp_path / "out"),
               "--sources", "4", "--clips-per-source", "2"]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["files"] == 11
