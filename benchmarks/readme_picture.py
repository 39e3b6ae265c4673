"""The README's picture: what a trained model makes of a video with a fight in the middle.

    python benchmarks/readme_picture.py --model demo/models_ensemble --output docs/verdict.png

`make demo` trains that model. The video is about 40 s of generated scenes of one source that the demo's data do not
hold: peaceful, then fights, then peaceful again. `test_violence_model.py` judges it as any other file. On the left is
the frame of the annotated video at the height of the event, on the right the page of the run as Chromium shows it
(playwright and an installed Chromium are needed). Nothing of a real video is in the picture, and it says nothing
about real videos. Prints one JSON line.
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

#: Scenes of about 2 s before, in and after the fight.
_SCENES = (("nonfight", 7), ("fight", 6), ("nonfight", 7))
#: The page is shown at this size, and shrunk to the height of the picture with the frame beside it.
_PAGE_SIZE = (860, 640)
_HEIGHT, _GAP = 480, 12
_UNTIL_SHOWN_MS = 2000
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, required=True, help="a trained ensemble or model folder")
    p.add_argument("--output", type=Path, required=True, help="the picture, .png")
    p.add_argument("--seed", type=int, default=0, help="seed of place and people (default: 0)")
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
            raise UserError(f"{args.model} finds no event in the generated scenes. Train it again: make demo")
        frame = frame_at(folder / "annotated", event["peak_s"])
        page = screenshot(folder / "page" / "index.html")
    picture = beside(frame, page)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.output), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    cli.print_summary({**verdict, "path": "generated", "true_fight": fight, "picture": str(args.output)})
    return cli.EXIT_DONE


def judged(folder: Path, model: Path) -> dict[str, Any]:
    """Judge `folder`/street.mp4 as users do, with annotated video and page: the verdict."""
    command = [sys.executable, str(ROOT / "test_violence_model.py"), "street.mp4", "--model", str(model.resolve()),
               "--annotate", "annotated", "--timeline", "page", "--merge-gap-s", "2.5"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"judging ended with {done.returncode}:\n{done.stderr[-2000:]}")
    verdict: dict[str, Any] = json.loads(done.stdout)["videos"][0]
    return verdict


def frame_at(folder: Path, time_s: float) -> np.ndarray:
    """The frame that the one video of a folder shows at that moment, (H, W, 3) uint8 RGB."""
    (path,) = folder.glob("*.mp4")
    info = decode.timing(path)
    number = min(round(time_s * info.fps), info.n_frames - 1)
    ((_, frame),) = decode.moments(path, info, [number])
    return frame


def screenshot(page: Path) -> np.ndarray:
    """The page with its player at the begin of the first event, (H, W, 3) uint8 RGB."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    if chromium is None:
        raise UserError("no Chromium is installed: apt install chromium")
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
    """Pictures of any size beside each other, of one height, on white."""
    scaled = []
    for picture in pictures:
        width = round(picture.shape[1] * _HEIGHT / picture.shape[0])
        way = cv2.INTER_AREA if picture.shape[0] > _HEIGHT else cv2.INTER_CUBIC
        scaled += [cv2.resize(picture, (width, _HEIGHT), interpolation=way),
                   np.full((_HEIGHT, _GAP, 3), 255, np.uint8)]  # fmt: skip
    return np.concatenate(scaled[:-1], axis=1)


def make_frames(seed: int) -> tuple[list[np.ndarray], float, tuple[float, float]]:
    """Scenes of one source, joined: frames (H, W, 3) uint8 BGR, their rate, and the fight's start and end in s."""
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
