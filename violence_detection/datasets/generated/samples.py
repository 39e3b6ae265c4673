"""Small generated sample data: `make demo` and the tests run on it where no real data set is at hand.

Procedural scenes of two figures (scenes) are written into three of the published layouts, so that
later stages meet the names and folders they meet in real data, with one exact duplicate, one re-encoded
duplicate and one broken file. The root is marked as generated: a number measured on it says nothing about
real violence.

    python -m violence_detection.datasets.generated --output DIR --seed 0
"""

from __future__ import annotations

import shutil
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets.generated.marker import MARKER_NAME, SAMPLE_LABEL
from violence_detection.errors import UserError
from violence_detection.system import console, processes, storage

if TYPE_CHECKING:
    import numpy as np

DEFAULT_SOURCES = 20
DEFAULT_CLIPS_PER_SOURCE = 5
_MIN_SOURCES = 4  # so that RWF-2000 has a source in train and one in val, and the other two have one each
_MIN_CLIPS_PER_SOURCE = 2  # so that each source has both classes
#: The published layout into which each source is written, in turn: half RWF-2000, a quarter each of the others.
_LAYOUT_CYCLE = ("rwf_2000", "surveillance_fight", "rwf_2000", "hockey_fights")
_SETTINGS = {"rwf_2000": "street", "surveillance_fight": "room", "hockey_fights": "rink"}
#: How many file numbers one source has in the layout of Hockey Fights: clips with neighbouring numbers share a game.
_HOCKEY_BLOCK = 25


@dataclass(frozen=True)
class SampleClip:
    """One clip to render: its path below the root, what it shows, and its source."""

    path: str
    label: str
    layout: str
    source_id: str
    source_seed: int
    variant: int
    scene_seed: int


@dataclass(frozen=True)
class SampleSet:
    """What was rendered. Paths are below `root`, with forward slashes.

    `clips`: without the two duplicates and the broken file. Each duplicate is (original, copy). `video_ids`: the id of
    the source video by path, also for the duplicates and the broken file.
    """

    root: Path
    clips: tuple[str, ...]
    exact_duplicate: tuple[str, str]
    reencoded_duplicate: tuple[str, str]
    broken: str
    video_ids: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """The fields of the JSON summary line."""
        return {
            "output": str(self.root),
            "generated": True,
            "clips": len(self.clips),
            "files": len(self.clips) + 3,
            "exact_duplicate": list(self.exact_duplicate),
            "reencoded_duplicate": list(self.reencoded_duplicate),
            "broken": self.broken,
        }


def render_samples(
    target: Path,
    *,
    sources: int = DEFAULT_SOURCES,
    clips_per_source: int = DEFAULT_CLIPS_PER_SOURCE,
    seed: int,
) -> SampleSet:
    """Render `sources` x `clips_per_source` clips, two duplicates and a broken file into `<target>/raw/`.

    The pixels passed to the encoder depend only on the arguments. The marker is written first, as incomplete, so that
    generated clips are never unmarked; the same call completes what an interrupted run left.

    Raises UserError if target/raw already contains anything else, if the marker names other arguments, and for numbers
    too small to fill the layouts.
    """
    if sources < _MIN_SOURCES or clips_per_source < _MIN_CLIPS_PER_SOURCE:
        raise UserError(
            f"sample clips need at least {_MIN_SOURCES} sources and {_MIN_CLIPS_PER_SOURCE} clips per source "
            f"to fill the three layouts with both classes. Received: {sources} and {clips_per_source}"
        )
    settings = {"sources": sources, "clips_per_source": clips_per_source, "seed": seed}
    _claim(target, settings)
    for folder in sorted(p for p in (target / "raw").rglob("*") if p.is_dir()):
        storage.remove_abandoned(folder)  # temporary files of a run that was killed
    clips = plan_clips(sources, clips_per_source, seed)
    missing = [clip for clip in clips if not (target / clip.path).is_file()]
    _render_all(target, missing)
    _write_videos_txt(target, clips)
    sample_set = _add_unfit_files(target, clips)
    record = {"generated": True, "complete": True, "note": SAMPLE_LABEL, **settings, **sample_set.summary()}
    del record["output"]  # the folder may be moved
    storage.write_json(target / MARKER_NAME, record)
    return sample_set


def plan_clips(sources: int, clips_per_source: int, seed: int) -> list[SampleClip]:
    """Every clip to render, in a fixed order; classes alternate within a source."""
    clips: list[SampleClip] = []
    for index in range(sources):
        layout = _LAYOUT_CYCLE[index % len(_LAYOUT_CYCLE)]
        position = sum(_LAYOUT_CYCLE[i % len(_LAYOUT_CYCLE)] == layout for i in range(index))
        source_seed = storage.stable_seed("sample source", seed, index)
        video_id = _video_id(source_seed)
        numbers = dict.fromkeys(CLASS_NAMES, 0)
        for j in range(clips_per_source):
            label = CLASS_NAMES[(position + j) % 2]
            earlier = sum(c.layout == layout and c.label == label for c in clips)
            path = _clip_path(layout, position, video_id, label, numbers[label], earlier)
            numbers[label] += 1
            clips.append(
                SampleClip(
                    path,
                    label,
                    layout,
                    video_id,
                    source_seed,
                    earlier,
                    storage.stable_seed("scene", source_seed, j),
                )
            )
    return clips


def scene_frames(clip: SampleClip) -> tuple[np.ndarray, float]:
    """The frames passed to the encoder, (n_frames, height, width, 3) uint8 BGR, and their rate in frames per second."""
    from violence_detection.datasets.generated import scenes

    source = scenes.make_source(_SETTINGS[clip.layout], clip.source_seed)
    return scenes.render_scene(source, clip.label, clip.variant, clip.scene_seed), source.fps


def _video_id(source_seed: int) -> str:
    """An id of eleven characters, in the form of YouTube's."""
    random = Random(source_seed)
    return "sample" + "".join(random.choices(string.ascii_letters + string.digits + "-_", k=5))


def _clip_path(layout: str, position: int, video_id: str, label: str, number: int, earlier: int) -> str:
    """The path of a clip below the root, as its published layout names it.

    `position`: the source's number in the layout. `number`: the clip's number in its class and source, `earlier`: in
    its class and layout; all from 0.
    """
    fight = label == "fight"
    if layout == "rwf_2000":
        split = "val" if position % 5 == 1 else "train"
        name = f"{video_id}_{number if fight else number + 50}.avi"
        return f"raw/rwf_2000/RWF-2000/{split}/{'Fight' if fight else 'NonFight'}/{name}"
    if layout == "surveillance_fight":
        folder, prefix = ("fight", "fi") if fight else ("noFight", "nofi")
        return f"raw/surveillance_fight/{folder}/{prefix}{earlier + 1:03d}.mp4"
    name = f"{'fi' if fight else 'no'}{_HOCKEY_BLOCK * position + 11 + number}_xvid.avi"
    return f"raw/hockey_fights/data/{name}"


def _claim(target: Path, settings: dict[str, int]) -> None:
    """Mark `target` as generated before anything is rendered.

    Raises UserError if it already holds other data, or samples made with other settings.
    """
    marker = target / MARKER_NAME
    if marker.is_file():
        found = storage.read_json(marker)
        if {k: found.get(k) for k in settings} != settings:
            raise UserError(
                f"{marker} was made with settings other than {settings}. "
                "Remove the folder that it is in or choose another --output"
            )
        return
    raw = target / "raw"
    if raw.exists() and (not raw.is_dir() or any(raw.iterdir())):
        raise UserError(
            f"{raw} already holds data that was not generated. Choose another --output for sample clips"
        )
    storage.write_json(marker, {"generated": True, "complete": False, "note": SAMPLE_LABEL, **settings})


def _render_all(target: Path, clips: Sequence[SampleClip]) -> None:
    """Render in as many processes as this one may use cores, at most 8."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    if not clips:
        return
    cores = processes.usable_cpus()
    context = multiprocessing.get_context("spawn")  # forking a process that has run OpenCV threads can hang
    with ProcessPoolExecutor(min(cores, 8), mp_context=context) as pool:
        jobs = pool.map(_render_clip, [target] * len(clips), clips, chunksize=5)
        for _ in console.progress(jobs, total=len(clips), desc="sample clips", unit="clip"):
            pass


def _render_clip(target: Path, clip: SampleClip) -> None:
    import cv2

    cv2.setNumThreads(1)
    frames, fps = scene_frames(clip)
    _encode(target / clip.path, frames, fps, "mp4v" if clip.path.endswith(".mp4") else "XVID")


def _encode(path: Path, frames: np.ndarray, fps: float, codec: str) -> None:
    from violence_detection.video import writer

    with storage.atomic_path(path) as temporary:
        writer.write(temporary, fps, frames, codec)


def _write_videos_txt(target: Path, clips: Sequence[SampleClip]) -> None:
    """Write the list of Surveillance Camera Fight: each video's address, then its clips with their times (m.ss.cc)."""
    lines: list[str] = []
    last_video = ""
    start_s = 0.0
    for clip in (c for c in clips if c.layout == "surveillance_fight"):
        if clip.source_id != last_video:
            lines.append(f"https://www.youtube.com/watch?v={clip.source_id}")
            last_video, start_s = clip.source_id, 4.5
        lines.append(f"{Path(clip.path).stem}: {_minutes(start_s)} - {_minutes(start_s + 2.0)}")
        start_s += 7.3
    storage.write_text(target / "raw/surveillance_fight/videos.txt", "\n".join(lines) + "\n")


def _minutes(time_s: float) -> str:
    minutes, seconds = divmod(time_s, 60)
    return f"{int(minutes)}.{seconds:05.2f}"


def _add_unfit_files(target: Path, clips: Sequence[SampleClip]) -> SampleSet:
    """Add the exact copy, the re-encoded copy and the broken file.

    The exact copy is beside its original under the next number, as happens in Hockey Fights. The re-encoded copy is in
    RWF-2000's train, under another video's id, while its original is in the official val: a leak that has to be found.
    """
    hockey = [c for c in clips if c.layout == "hockey_fights" and c.label == "nonfight"][-1]
    rwf = [c for c in clips if c.layout == "rwf_2000"]
    held_out = next(c for c in rwf if "/val/" in c.path and c.label == "fight")
    host = next(c for c in rwf if "/train/" in c.path and c.label == "fight")
    number = int(Path(hockey.path).name.removeprefix("no").removesuffix("_xvid.avi"))
    exact = f"raw/hockey_fights/data/no{number + 1}_xvid.avi"
    copy_id = _video_id(storage.stable_seed("re-encoded", held_out.source_seed))
    reencoded = f"raw/rwf_2000/RWF-2000/train/Fight/{copy_id}_0.avi"
    broken = host.path.rsplit("_", 1)[0] + "_49.avi"
    if not (target / exact).is_file():
        with storage.atomic_path(target / exact) as temporary:
            shutil.copyfile(target / hockey.path, temporary)
    if not (target / reencoded).is_file():
        _reencode(target / reencoded, held_out)
    _write_broken(target / broken, target / host.path)
    video_ids = {c.path: c.source_id for c in clips}
    video_ids |= {exact: hockey.source_id, reencoded: held_out.source_id, broken: host.source_id}
    return SampleSet(
        target,
        tuple(c.path for c in clips),
        (hockey.path, exact),
        (held_out.path, reencoded),
        broken,
        video_ids,
    )


def _reencode(path: Path, original: SampleClip) -> None:
    """Render `original` again and encode it as Motion JPEG, at four fifths of its width and height."""
    import cv2
    import numpy as np

    frames, fps = scene_frames(original)
    height, width = (int(n * 0.8) // 2 * 2 for n in frames.shape[1:3])
    small = [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames]
    _encode(path, np.stack(small), fps, "MJPG")


def _write_broken(path: Path, whole: Path) -> None:
    """Write the first bytes of the clip `whole`, then noise, which is what a broken download looks like."""
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(whole.read_bytes()[:1500] + Random(0).randbytes(4000))
