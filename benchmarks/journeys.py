"""Count the modules that are involved in turning a raw file into features, and a video into a verdict.

    python benchmarks/journeys.py --clips FOLDER [--model MODEL] [--backbone efficientnet_lite0]

FOLDER contains a data set as it is published; a few clips are enough. With --model, one of its clips is also judged.

Prints one JSON line. For each of the two ways it has the number of modules of the package whose functions were called
(`called`), the number of pairs of different modules of which one called the other (`pairs`), and the modules' names.
Calls in all threads count. Work that would go to other processes is done in this one, so that it counts, too. What is
set up once for all files (settings, catalogue, folders of other programs, backbone, weights, engine, free disk space)
is reported separately, because no file passes through it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_PREFIX = str(ROOT / "violence_detection") + os.sep


class Calls:
    """The modules of the package that were called, and the pairs (caller, called) of different modules."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.pairs: set[tuple[str, str]] = set()

    def during(self, work: Callable[[], Any]) -> Any:
        """Do the work, count its calls in all threads, and return its result."""
        sys.setprofile(self._note)
        threading.setprofile(self._note)
        try:
            return work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        module = _module(frame.f_code)
        if event != "call" or module is None:
            return
        caller = frame.f_back
        while caller is not None:
            if caller.f_code.co_name == "<module>" and _module(caller.f_code):
                return  # importing a module is not a step of the journey
            caller = caller.f_back
        if frame.f_code.co_name == "<module>":
            return
        self.modules.add(module)
        caller = frame.f_back
        while caller is not None and _module(caller.f_code) is None:
            caller = caller.f_back
        if caller is not None and (other := _module(caller.f_code)) != module:
            self.pairs.add((str(other), module))


def _module(code: CodeType) -> str | None:
    if not code.co_filename.startswith(_PREFIX):
        return None
    return code.co_filename.removeprefix(_PREFIX).removesuffix(".py").replace(os.sep, ".")


def raw_to_features(clips: Path, root: Path, backbone: str) -> tuple[Calls, Calls]:
    """Combine and extract as the scripts do; return the calls of the files' journey and those of the set-up.

    The set-up is done once for all files: check the settings, read the catalogue, look for the folders of other
    programs, find the backbone, read its weights, build its network, and compare the free disk space with what is
    needed.
    """
    from violence_detection.combine import combine, manifest
    from violence_detection.combine.config import CombineConfig
    from violence_detection.datasets import catalogue
    from violence_detection.features import extract
    from violence_detection.features.config import ExtractConfig, FeatureConfig
    from violence_detection.find import kaggle_folders
    from violence_detection.system import processes, settings
    from violence_detection.training import training_data  # noqa: F401 - everything is imported before the journey

    def here(function: Any, items: Any, workers: int, on_crash: Any, **_: Any) -> Iterator[tuple[Any, Any]]:
        processes.worker_count(workers)
        for item in items:
            yield item, function(item)

    processes.map_unordered = here
    shutil.copytree(clips, root / "raw" / clips.name)
    journey, set_up = Calls(), Calls()
    before: tuple[tuple[Any, str], ...] = (
        (catalogue, "load"),
        (kaggle_folders, "folders"),
        (extract, "check"),
        (extract, "open_groups"),
        (extract, "_check_disk"),
        (extract, "_engine"),
        (settings.BaseConfig, "__post_init__"),
    )
    for module, name in before:
        setattr(module, name, _counted_as_set_up(getattr(module, name), journey, set_up))
    config, how = FeatureConfig(backbone=(backbone,)), ExtractConfig(data_root=root, augment=2)

    def work() -> None:
        combine.run(CombineConfig(data_root=root))
        extract.ensure(extract.all_clips(how), config, how)
        assert not manifest.read(root / "combined_all").empty

    journey.during(work)
    return journey, set_up


def _counted_as_set_up(function: Callable[..., Any], journey: Calls, set_up: Calls) -> Callable[..., Any]:
    """Wrap `function` so that its calls, and all calls that it makes, count as set-up and not as journey."""

    def run(*args: Any, **kwargs: Any) -> Any:
        before = sys.getprofile()
        if before != journey._note:
            return function(*args, **kwargs)
        sys.setprofile(None)
        try:
            return set_up.during(lambda: function(*args, **kwargs))
        finally:
            sys.setprofile(before)
            threading.setprofile(before)

    return run


def video_to_verdict(video: Path, model: Path) -> Calls:
    """Load a model and judge a video; return the calls of both."""
    import violence_detection.prediction.detector  # noqa: F401 - everything is imported before the journey

    calls = Calls()
    calls.during(lambda: __import__("violence_detection").load(model).judge(video))
    return calls


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder with a data set as it is published")
    parser.add_argument(
        "--backbone",
        default="efficientnet_lite0",
        help="backbone to extract with (default: efficientnet_lite0)",
    )
    parser.add_argument(
        "--model", type=Path, help="trained model to judge a clip of --clips with (default: judge none)"
    )
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.model:
            from violence_detection.video.video_files import VideoSearch

            video = min(VideoSearch().below(args.clips))
            verdict = video_to_verdict(video, args.model)
            imported = [
                n
                for n, m in sys.modules.items()
                if n.startswith("violence_detection.") and not hasattr(m, "__path__")
            ]
            found["video_to_verdict"] = _figures(verdict) | {"imported": len(imported)}
        journey, set_up = raw_to_features(args.clips, Path(folder), args.backbone)
        found["raw_to_features"] = _figures(journey)
        found["set_up"] = _figures(set_up)
        together = Calls()
        together.modules, together.pairs = journey.modules | set_up.modules, journey.pairs | set_up.pairs
        found["raw_to_features_with_set_up"] = _figures(together)
    print(json.dumps(found))
    return 0


def _figures(calls: Calls) -> dict[str, Any]:
    return {"called": len(calls.modules), "pairs": len(calls.pairs), "modules": sorted(calls.modules)}


if __name__ == "__main__":
    sys.exit(main())
