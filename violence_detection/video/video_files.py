"""Find the video files below folders, and run work on them in processes that a broken file can crash or block.

A file is a video if FFmpeg opens it. The suffixes of recorders, phones, editors and raw streams count as videos, those
of pictures, sound, text and the like do not, and only files with neither are opened to see.

A broken video may crash the process that decodes it, or keep it busy for ever, so each is decoded in a worker process
(system/processes.py). An error of the decoder comes again whenever the same bytes are read, so it is remembered. Other
failures (no memory, a disk that did not answer, a permission) may pass, so every run tries these files again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from violence_detection.errors import NOT_READ
from violence_detection.system import console, folders, processes

T = TypeVar("T")
R = TypeVar("R")


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


#: Suffixes of containers and raw streams with moving pictures, in lower case.
VIDEO_SUFFIXES = _suffixes(
    """
    avi divx xvid mp4 m4v mp4v mov qt 3gp 3g2 f4v flv ism ismv mj2 mkv mk3d webm wmv asf wtv dvr-ms
    mpeg mpg mpe mpv m1v m2v m2p vob vro evo ts m2ts mts m2t trp tp tod mod mxf gxf dv dif
    ogv ogm rm rmvb ivr amv nut nuv ivf obu y4m mjpg mjpeg gif flc fli bik bk2 smk roq viv nsv pva ty
    h261 h263 h264 264 avc h26l h265 265 hevc h266 266 vvc vc1 rcv av1 dav drc dhav ifv lvf moflex usm
    """
)
#: Suffixes of files that are not videos and are not opened to see: pictures, sound, subtitles, text, data, archives,
#: programs, and incomplete files.
_OTHER_SUFFIXES = _suffixes(
    """
    jpg jpeg jpe jfif png bmp tif tiff webp heic heif avif jxl jp2 ppm pgm pbm svg ico psd raw dng cr2 nef arw exr
    mp3 wav flac ogg oga opus m4a m4b aac ac3 eac3 dts wma aif aiff mid midi amr ape mka mp2 mpa
    srt sub idx ass ssa vtt sup smi lrc ttml
    txt md rst csv tsv json jsonl xml yaml yml toml ini cfg conf log html htm css js pdf doc docx xls xlsx ppt pptx
    odt ods rtf tex bib nfo url lnk ics eml sha1 sha256 md5 sfv par2 sig asc pem
    npy npz pkl pickle h5 hdf5 mat parquet feather arrow tfrecord mdb db sqlite pt pth ckpt onnx pb keras tflite
    safetensors joblib zip tar gz tgz bz2 tbz2 xz txz zst 7z rar lz4 iso dmg cab deb rpm jar whl apk
    py pyc pyi ipynb sh bat ps1 c cc cpp h hpp java class go rs rb php pl r m lua tsx jsx sql so dll exe o a lib
    thm lrv aae xmp bup ifo cpi mpl bdm bdmv modd moff pek cfa prproj
    part crdownload download partial aria2 tmp temp bak swp lock
    """
)
#: Suffixes of videos that text files have as well, such as TypeScript's and Go's.
_TEXTS_TOO = frozenset({".ts", ".mts", ".mod"})
#: Folders that this suite makes.
SUITE_FOLDERS = frozenset({"combined_all", "features", "models_ultimate", "models_ensemble", "reports"})
#: Those of them whose names other people use too. The suite's own have no videos directly in them, so such a folder is
#: skipped only if it has none.
_PLAIN_WORDS = frozenset({"features", "reports"})
#: Folders that archivers and file systems leave behind.
_LITTER_FOLDERS = frozenset({"__MACOSX", "lost+found"})
#: Names of files that do not even count as skipped: macOS' notes on a file (`._*`), and this suite's temporary files.
_LITTER = re.compile(r"\._.*|\..+\.tmp(\.[^.]*)?", re.DOTALL)
#: The folder below the data root for clips cut from untrimmed videos, and the file in it that tells that this suite
#: made it.
WINDOWS_FOLDER, WINDOWS_JOURNAL = "windows", ".cut.jsonl"
#: Seconds that FFmpeg may take to say whether a file is a video.
_OPEN_LIMIT_S = 30.0
#: The most packets of a file that are decoded for that.
_MOST_PACKETS = 100
#: Keeps FFmpeg from opening network addresses: a file that is a list of segments can name any, and for a file object
#: FFmpeg forbids none by itself.
FILES_ALONE = {"protocol_whitelist": "file,crypto,data"}
_PROBE = {"probesize": "2000000", **FILES_ALONE}
#: Files per worker: opening them takes about as long as starting another worker.
_FILES_PER_WORKER = 200
#: The most kinds of skipped files that are named; the others are summed up.
_KINDS_NAMED = 8
#: The longest time limit for one file. Hours of video decode in minutes: a file that takes longer is damaged, or its
#: disk does not answer.
TIME_LIMIT_S = 30 * 60.0
#: A file's time limit is this plus _S_PER_MB for each megabyte: for a file of a few seconds hundreds of times its need.
_LEAST_S = 120.0
_S_PER_MB = 20.0
#: How reasons begin that may not hold in the next run. `may_pass` compares them with reasons that earlier runs stored.
CRASHED = "takes the decoder down: the process that read it died"
_TOO_LONG = "takes more than "


@dataclass
class VideoSearch:
    """A search for the video files below folders. It follows links to folders, and enters each real folder once.

    A file with the suffix of a video counts even if it is a link whose target does not exist.

    everywhere: whether to look into folders that this suite makes, too. skipped: number of files that are not videos,
    by suffix ("hidden" and "without suffix" are kinds, too). unlisted: {path, reason} of folders that cannot be listed.
    """

    everywhere: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    unlisted: list[dict[str, str]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def below(self, root: Path) -> Iterator[Path]:
        """Yield the videos below a folder; those that FFmpeg had to be asked about come last."""
        unknown: list[Path] = []
        for folder, subfolders, names in folders.walk(root, self._seen, self._cannot_list):
            subfolders[:] = [s for s in subfolders if self._looks_into(folder / s)]
            for name in names:
                path = folder / name
                if name.startswith("."):
                    self.skipped["hidden"] += _LITTER.fullmatch(name) is None
                elif (suffix := path.suffix.lower()) in VIDEO_SUFFIXES:
                    if suffix in _TEXTS_TOO and _is_file(path) and _is_text(path):
                        self.skipped[suffix] += 1
                    else:
                        yield path
                elif suffix in _OTHER_SUFFIXES or not _is_file(path):
                    self.skipped[suffix or "without suffix"] += 1
                else:
                    unknown.append(path)
        for path, opens in which_open(unknown):
            if opens:
                yield path
            else:
                self.skipped[path.suffix.lower() or "without suffix"] += 1

    def _looks_into(self, folder: Path) -> bool:
        """Whether to enter a folder: not if it is hidden or litter, nor, unless `everywhere`, if this suite made it."""
        if folder.name.startswith("."):
            self.skipped["hidden"] += 1
            return False
        if folder.name in _LITTER_FOLDERS:
            return False
        if self.everywhere:
            return True
        if folder.name == WINDOWS_FOLDER:
            return not _is_file(folder / WINDOWS_JOURNAL)
        if folder.name in _PLAIN_WORDS:
            return _holds_videos(folder)
        return folder.name not in SUITE_FOLDERS

    def _cannot_list(self, error: OSError) -> None:
        reason = f"this folder cannot be listed, so no file in it was found: {error.strerror}"
        self.unlisted.append({"path": os.fsdecode(error.filename), "reason": reason})

    def skipped_text(self) -> str:
        """How many files of which kind were skipped, such as "3 .txt, 2 .jpg"; empty if none were."""
        kinds = sorted((-n, kind) for kind, n in self.skipped.items() if n)
        said = [f"{-n} {kind}" for n, kind in kinds[:_KINDS_NAMED]]
        more = -sum(n for n, _ in kinds[_KINDS_NAMED:])
        return ", ".join([*said, *([f"{more} of other kinds"] if more else [])])


def which_open(paths: Sequence[Path]) -> list[tuple[Path, bool]]:
    """For each file, sorted, whether FFmpeg finds moving pictures in it. It is asked in worker processes."""
    workers = min(processes.usable_cpus(), 1 + len(paths) // _FILES_PER_WORKER)
    asked = processes.map_unordered(
        _opens, paths, workers, _is_none, time_limit_s=_OPEN_LIMIT_S, on_timeout=_is_none
    )
    few = len(paths) < _FILES_PER_WORKER
    return sorted(
        console.progress(asked, total=len(paths), desc="files of unknown kind", unit="file", disable=few)
    )


def _is_none(_: Path) -> bool:
    return False


def _opens(path: Path) -> bool:
    """Whether two frames of a video stream decode: a picture has one, a file that only looks like a video none."""
    import av  # here, since it is needed only for files with unknown suffixes

    frames = 0
    try:
        # as a file object, since its name may not be UTF-8
        with path.open("rb") as file, av.open(file, "r", options=_PROBE) as container:
            if not container.streams.video or container.format.name.endswith("_pipe"):
                return False
            for packet in itertools.islice(container.demux(container.streams.video[0]), _MOST_PACKETS):
                with contextlib.suppress(av.FFmpegError):
                    frames += len(packet.decode())
                if frames > 1:
                    return True
    except (av.FFmpegError, IndexError, OSError, ValueError):
        return False
    return False


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - raises no error


def _holds_videos(folder: Path) -> bool:
    """Whether a file directly in the folder has the suffix of a video."""
    try:
        return any(path.suffix.lower() in VIDEO_SUFFIXES for path in folder.iterdir())
    except OSError:
        return False


def _is_text(path: Path) -> bool:
    """Whether the first 512 bytes of a file have no control characters but those of texts; False if empty."""
    try:
        with path.open("rb") as file:
            beginning = file.read(512)
    except OSError:
        return False
    return bool(beginning) and all(byte >= 32 or byte in b"\t\n\r\f" for byte in beginning)


def time_limit_s(path: Path) -> float:
    """How many seconds the file may take, by its size."""
    try:
        size_bytes = path.stat().st_size
    except OSError:
        size_bytes = 0
    return min(TIME_LIMIT_S, _LEAST_S + _S_PER_MB * size_bytes / 1e6)


def timed_out(path: Path) -> str:
    """The reason to state for a file that took longer than its time limit."""
    return (
        f"{_TOO_LONG}{time_limit_s(path) / 60:.0f} min to read, and was given up. If its disk is slow, copy the "
        "file to a faster one; otherwise convert it (ffmpeg -i OLD NEW.mp4) or remove it. Then run the same command "
        "again"
    )


def cannot_be_read(path: Path, error: OSError) -> str:
    """The reason to state for a file that the system cannot read."""
    if path.is_symlink() and not path.exists():
        return (
            f"{NOT_READ}it is a link to {path.readlink()}, which does not exist. Correct or remove the link"
        )
    return f"{NOT_READ}{error.strerror or error}"


def may_pass(reason: str) -> bool:
    """Whether the reason may no longer hold in the next run, so that it must not be remembered."""
    return reason.startswith((CRASHED, _TOO_LONG, NOT_READ))


def map_files(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    path_of: Callable[[T], Path],
    failed: Callable[[T, str], R],
) -> Iterator[tuple[T, R]]:
    """Yield (item, function(item)), from `processes.map_unordered` with each file's time limit, in any order.

    For an item that crashed its process or took too long it is (item, failed(item, reason)). An item whose process died
    is first tried once more, alone: many decoders at once may have needed more memory than there is, and the one that
    the system then kills need not be the cause. `function` must not return None.
    """
    crashed: list[T] = []

    def timed(
        items: Iterable[T], workers: int, on_crash: Callable[[T], R | None]
    ) -> Iterator[tuple[T, R | None]]:
        return processes.map_unordered(
            function,
            items,
            workers,
            on_crash,
            time_limit_s=lambda item: time_limit_s(path_of(item)),
            on_timeout=lambda item: failed(item, timed_out(path_of(item))),
        )

    for item, result in timed(items, workers, lambda _: None):
        if result is None:
            crashed.append(item)
        else:
            yield item, result
    for item, result in timed(crashed, 1, lambda item: failed(item, CRASHED)):
        assert result is not None
        yield item, result
