"""`json`: a video's verdict as on stdout, with every window, the model's identity and the video's real path."""

from __future__ import annotations

from violence_detection.prediction.events import Verdict
from violence_detection.prediction.formats import of_video
from violence_detection.system import storage


@of_video("json", r"\.verdict\.json")
def verdict_json(verdict: Verdict) -> dict[str, str]:
    """Return `<video>.verdict.json`."""
    whole = {**verdict.summary(), "fps": verdict.fps, "windows": [w.record() for w in verdict.windows]}
    whole |= {name: value for name in ("model", "real_path") if (value := getattr(verdict, name))}
    return {".verdict.json": storage.as_json(whole, indent=2, sort_keys=True) + "\n"}
