"""Make the README's picture: how a trained model judges a video with a fight in the middle.

    python benchmarks/readme_picture.py --model demo/models_ensemble --output docs/verdict.png

`make demo` trains that model. The video is about 40 s of generated scenes of one source that the demo's data do not
contain: peaceful, then fights, then peaceful again. `test_violence_model.py` judges it like any other file. The picture
shows, on the left, the frame of the annotated video at the event's highest P(violent) and, on the right, the page of
the run in Chromium, so playwright and Chromium must be installed. It contains no real video, and says nothing about
real videos. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from violence_detection import cli
from violence_detection.datasets.generated import scenes
from violence_detection.errors import UserError
from violence_detection.system.storage import stable_seed
from violence_detection.video import decode, writer

ROOT = Path(__file__).resolve().parent.parent

#: Label and number of scenes, of about 2 s each, before, in and after the fight.
_SCENES = (("nonfight", 7), ("fight", 6), ("nonfight", 7))
#: Size at which the page is shown before it is scaled to _HEIGHT: width, height.
_PAGE_SIZE = (860, 640)
#: Height of the picture in pixels.
_HEIGHT = 480
#: Gap between the frame and the page in pixels.
_GAP = 12
#: Time for the player to go to the event before the screenshot.
_UNTIL_SHOWN_MS = 2000
#: Names that Chromium may have on the PATH.
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, required=True, help="folder of a trained ensemble or model")
    p.add_argument("--output", type=Path, required=True, help="write the picture to this file, .png")
    p.add_argument("--seed", type=int, default=0, help="seed of the place and the people (default: 0)")
    args = cli.parse(p)
    frames, fps, fight = make_frames(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with writer.h264(folder / "street.mp4", fps) as put:
            for frame in frames:
                put(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        verdict = judged(folder, args.model)
        event = max(verdict["events"], key=lambda e: e["p_violent"], default=None)
        if event is None:
            raise UserError(
                f"{args.model} finds no event in the generated scenes. Train the model again (make demo)"
            )
        frame = frame_at(folder / "annotated", event["peak_s"])
        page = screenshot(folder / "page" / "index.html")
    picture = beside(frame, page)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.output), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    cli.print_summary({**verdict, "path": "generated", "true_fight": fight, "picture": str(args.output)})
    return cli.EXIT_DONE


def judged(folder: Path, model: Path) -> dict[str, Any]:
    """Judge `folder`/street.mp4 with the script that users run, and return the verdict.

    Also writes the annotated video to `folder`/annotated, and the page to `folder`/page.
    """
    command = [sys.executable, str(ROOT / "test_violence_model.py"), "street.mp4", "--model", str(model.resolve()),
               "--annotate", "annotated", "--timeline", "page", "--merge-gap-s", "2.5"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"test_violence_model.py failed with exit code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    verdict: dict[str, Any] = json.loads(done.stdout)["videos"][0]
    return verdict


def frame_at(folder: Path, time_s: float) -> np.ndarray:
    """The frame, (H, W, 3) uint8 RGB, that the only video of a folder shows at `time_s`."""
    (path,) = folder.glob("*.mp4")
    info = decode.timing(path)
    number = min(round(time_s * info.fps), info.n_frames - 1)
    ((_, frame),) = decode.moments(path, info, [number])
    return frame


def screenshot(page: Path) -> np.ndarray:
    """Take a picture, (H, W, 3) uint8 RGB, of the page with its player at the start of the first event."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    if chromium is None:
        raise UserError("Chromium is not installed. Install it with: apt install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page()
        view.set_viewport_size({"width": _PAGE_SIZE[0], "height": _PAGE_SIZE[1]})
        view.goto(page.resolve().as_uri())
        view.locator(".seek").first.click()
        view.wait_for_timeout(_UNTIL_SHOWN_MS)
        data = view.screenshot()
        browser.close()
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def beside(*pictures: np.ndarray) -> np.ndarray:
    """Scale pictures of any size to one height, and place them beside each other on white."""
    scaled = []
    for picture in pictures:
        width = round(picture.shape[1] * _HEIGHT / picture.shape[0])
        way = cv2.INTER_AREA if picture.shape[0] > _HEIGHT else cv2.INTER_CUBIC
        scaled += [cv2.resize(picture, (width, _HEIGHT), interpolation=way),
                   np.full((_HEIGHT, _GAP, 3), 255, np.uint8)]  # fmt: skip
    return np.concatenate(scaled[:-1], axis=1)


def make_frames(seed: int) -> tuple[list[np.ndarray], float, tuple[float, float]]:
    """Render scenes of one source in a row: frames (H, W, 3) uint8 BGR, frames per second, (start, end) of the fight.

    Start and end are in seconds.
    """
    source = scenes.make_source("street", stable_seed("readme picture", seed))
    frames: list[np.ndarray] = []
    borders = [0]
    for label, count in _SCENES:
        for i in range(count):
            scene_seed = stable_seed("readme picture", seed, len(borders), i)
            frames += list(scenes.render_scene(source, label, i, scene_seed))
        borders.append(len(frames))
    return frames, source.fps, (borders[1] / source.fps, borders[2] / source.fps)


if __name__ == "__main__":
    cli.run_main(main)
