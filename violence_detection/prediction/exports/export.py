"""Export a trained model to formats that other programs run, and check that it gives the same results there.

DIR/model.onnx, model.xml + model.bin, model.tflite   the model, in each format
DIR/manifest.json       inputs, sampling, thresholds, licences of the backbones, hashes
DIR/parity.json         P(violent) of the same pictures by this package and by each format
DIR/example_FORMAT.py   ten lines that judge a video without this package
DIR/video_windows.py    the module with which the examples read videos
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from violence_detection.errors import NOT_READ, UnreadableVideo, UserError
from violence_detection.models import model_files, shipped, trained_model
from violence_detection.models.trained_model import TrainedModel
from violence_detection.prediction import detector
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.exports import (
    converters,
    manifest,
    parity,
    runtimes,
    standalone,
    whole_graph,
)
from violence_detection.prediction.exports.converters import FORMATS
from violence_detection.prediction.exports.whole_graph import PictureInput
from violence_detection.system import disks, locks, storage

log = logging.getLogger(__name__)
#: Subfolder of the export in which its files lie until all of them are made.
_MAKING = ".making"

MANIFEST_NAME, PARITY_NAME = "manifest.json", "parity.json"


def run(
    config: PredictConfig, formats: Sequence[str], folder: Path, videos: Sequence[Path]
) -> dict[str, Any]:
    """Export a model to `folder`; return the summary {export, model, formats: {name: ...}, failures}.

    `videos`: files of which some windows are compared, in addition to made-up ones. A video that cannot be read is a
    failure, and the others are compared. A format that does not pass the comparison (see parity.report) is a failure,
    too, but its files are written. The folder gets all files or none. Raises UserError if there is no such format or
    model, a package is missing, the folder contains files of an export or another run has it, a format cannot hold the
    model, a setting has no counterpart in an export, or the stride is longer than the window.
    """
    check(formats)
    _check_plain(config)
    model = shipped.find(config.model)  # raises before anything is written to the folder
    _check_place(folder)
    with locks.only_one(folder, "an export"):
        _check_place(folder)  # again: the run that had the lock before may have written files
        made = folder / _MAKING
        shutil.rmtree(made, ignore_errors=True)  # left by a run that was killed
        try:
            return _run(config, model, formats, folder, made, videos)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _run(
    config: PredictConfig,
    path: Path,
    formats: Sequence[str],
    folder: Path,
    made: Path,
    videos: Sequence[Path],
) -> dict[str, Any]:
    """Do what `run` does for the model at `path`, making the files in `made` before they are moved to `folder`."""
    model = trained_model.load(path, config.backbone_weights).at(config.operating_point, config.threshold)
    if model.calibration and (other := model.calibration.other_views(1)):
        log.warning("the model is %s: exported models do not average views", other)
    config = replace(config, stride_s=detector.stride_s(config, model.features.window_s))
    runs = model.backbone_runs(config.backbone_weights)
    inputs = whole_graph.picture_inputs(runs)
    described = manifest.of_model(model, model_files.identity(path), path.name, inputs, config)
    reference = parity.Reference(model, runs, config.engine)
    windows, unread = _windows(model, inputs, videos, config.stride_s)
    judged = [(source, window, reference(window, inputs)) for source, window in windows]
    members = [member.name for member in model.members]
    written: dict[str, Any] = {}
    compared: dict[str, Any] = {}
    graph, as_traced = None, None
    made.mkdir()
    # formats that need the same graph follow each other: each graph is traced once, and only one is in memory
    for name in sorted(dict.fromkeys(formats), key=lambda name: FORMATS[name].two_dimensional):
        log.info("making %s", FORMATS[name].files[0])
        if as_traced is not FORMATS[name].two_dimensional:
            graph, as_traced = None, FORMATS[name].two_dimensional
            graph = whole_graph.trace(model, runs, as_traced)
        file = converters.write(name, graph, made)
        storage.write_text(made / standalone.example_name(name), standalone.example(name))
        written[name] = manifest.of_files(name, made)
        compared[name] = parity.report(parity.compare(judged, runtimes.load(name, file)), members)
        _tell(name, compared[name])
    storage.write_text(made / standalone.WINDOWS_NAME, standalone.windows_source())
    storage.write_json(made / PARITY_NAME, {"compared_with": reference.engines, "formats": compared})
    storage.write_json(made / MANIFEST_NAME, {**described, "formats": written})
    # the manifest comes last: where it is, the export is complete
    for file in sorted(made.iterdir(), key=lambda file: file.name == MANIFEST_NAME):
        file.replace(folder / file.name)
    log.info("wrote %s", folder)
    return _summary(folder, path, compared, unread)


def check(formats: Sequence[str]) -> None:
    """Raise UserError for an unknown format, for none at all, and if a package is missing."""
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"--export knows the formats {', '.join(FORMATS)}. Received: {', '.join(unknown)}")
    if not formats:
        raise UserError(f"--export needs a format: {', '.join(FORMATS)}")
    for name in formats:
        converters.check_installed(name)


def _check_plain(config: PredictConfig) -> None:
    """Raise UserError for settings that an exported model cannot have."""
    if config.profile:
        raise UserError(
            f"a camera profile cannot be exported: leave out --profile {config.profile}, and apply its logit offset "
            "and threshold to the output of the exported model"
        )
    if config.tta > 1:
        raise UserError("an exported model judges a single view of a window: leave out --tta")
    if config.skip_still:
        raise UserError("an exported model judges every window that it is given: leave out --skip-still")


def _check_place(folder: Path) -> None:
    """Raise UserError if the folder contains files of an export or cannot be written."""
    ours = {MANIFEST_NAME, PARITY_NAME, standalone.WINDOWS_NAME}
    for name, of_format in FORMATS.items():
        ours |= {standalone.example_name(name), *of_format.files}
    if there := sorted(name for name in ours if (folder / name).exists()):
        raise UserError(
            f"{folder} has {', '.join(there)} already, which this export would replace: name another folder. One run "
            "can write several formats into one folder, for example --export onnx,tflite DIR"
        )
    disks.check_can_write(folder, "--export")


def _windows(
    model: TrainedModel, inputs: Sequence[PictureInput], videos: Sequence[Path], stride_s: float
) -> tuple[list[tuple[str, parity.Window]], list[UnreadableVideo]]:
    """Return the windows to compare, made-up ones and those of the videos, and the videos that cannot be read."""
    found, unread = list(parity.made_windows(inputs)), []
    for video in videos:
        try:
            found += list(parity.windows_of_video(video, model, inputs, stride_s))
            continue
        except UnreadableVideo as e:
            unread.append(e)
        except OSError as e:
            unread.append(UnreadableVideo(video, f"{NOT_READ}{e.strerror or e}"))
        log.warning("%s: %s", video, unread[-1].reason)
    return found, unread


def _tell(name: str, of_format: Mapping[str, Any]) -> None:
    p, windows = of_format["p_package"], len(of_format["windows"])
    said = parity.failure(of_format) or "it agrees with this package"
    log.info("%s: %s; largest difference %.2g (limit %g), P(violent) from %.4f to %.4f over %d windows", name, said,
             of_format["max_difference"], parity.LIMIT, p["lowest"], p["highest"], windows)  # fmt: skip


def _summary(
    folder: Path, model: Path, compared: dict[str, Any], unread: Sequence[UnreadableVideo]
) -> dict[str, Any]:
    shown = ("max_difference", "limit", "p_package", "logit_limit", "members", "passed")
    return {
        "export": str(folder),
        "model": str(model),
        "formats": {name: {key: of_format[key] for key in shown} for name, of_format in compared.items()},
        "failures": [video.failure() for video in unread]
        + [
            {"path": str(folder / FORMATS[name].files[0]), "reason": f"{reason}; see {PARITY_NAME}"}
            for name, of_format in compared.items()
            if (reason := parity.failure(of_format))
        ],
    }
