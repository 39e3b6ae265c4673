"""A camera's threshold from quiet footage: the promised rate of false events is that of other footage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_videos

import test_violence_model
from violence_detection.errors import UserError
from violence_detection.models import model_files
from violence_detection.prediction import camera_profile, formats, kept_windows, quiet_footage
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import EventConfig, PredictConfig, QuietConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system.own_files import WrittenFiles

SETTINGS = EventConfig()


def _verdict(ps: np.ndarray | list[float], path: str = "v.mp4") -> Verdict:
    windows = tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, round(float(p), 4)) for i, p in enumerate(ps))
    length_s = 2.5 * (len(windows) + 1)
    return Verdict(path, windows, SETTINGS, length_s, length_s, fps=25.0)


def _hour(peaks: dict[int, float]) -> Verdict:
    """A verdict on an hour, 1,439 windows, that is quiet except for the windows in `peaks`."""
    p = np.full(1439, 0.1)
    for place, value in peaks.items():
        p[place] = value
    return _verdict(p)


def _model(folder: Path) -> Path:
    """Write files that are recognised as a model but cannot judge; return the path of its head."""
    (folder / "m.keras").write_bytes(b"a head")
    (folder / "config.json").write_text("{}")
    return folder / "m.keras"


def _keep(folder: Path, name: str, verdict: Verdict) -> None:
    """Write the windows of a verdict as a run with --format csv does."""
    (chosen,) = formats.chosen(["csv"])
    assert chosen.of_video
    formats.write(folder, name, chosen.of_video(verdict))


def test_an_hour_without_a_false_event_shows_one_an_hour_and_excludes_three() -> None:
    found = quiet_footage.choose([_hour({100: 0.7, 500: 0.9})], SETTINGS, 1.0)
    assert (found.threshold, found.false_events) == (0.9001, 0)
    assert (found.before, found.false_events_before) == (0.5, 2)
    assert found.hours == pytest.approx(1.0)
    assert found.expected_per_hour == pytest.approx(1.0)
    assert found.at_most_per_hour == pytest.approx(3.0, abs=0.01)
    assert found.shows_asked
    assert [e.p_violent for _, e in found.loudest] == [0.9, 0.7]
    rarer = quiet_footage.choose([_hour({100: 0.7, 500: 0.9})], SETTINGS, 0.1)
    assert (rarer.threshold, rarer.shows_asked) == (0.9001, False)
    assert "takes at least 10 h of quiet footage" in "\n".join(rarer.described())


def test_events_count_and_not_windows() -> None:
    """Three neighbouring windows are one event, so that with three an hour allowed the threshold may lie below them."""
    footage = _hour({100: 0.9, 101: 0.92, 102: 0.91, 500: 0.7, 700: 0.6, 900: 0.55})
    found = quiet_footage.choose([footage], SETTINGS, 3.0)
    assert (found.threshold, found.false_events) == (0.6001, 2)
    assert found.expected_per_hour == pytest.approx(3.0, abs=0.01)


def test_quieter_than_asked_is_left_as_it_is() -> None:
    found = quiet_footage.choose([_hour({})], SETTINGS, 1.0)
    assert (found.threshold, found.false_events) == (0.5, 0)
    assert found.described()[0].startswith("the threshold stays 0.5")
    assert found.loudest == ()


def test_of_seconds_of_footage_figures_are_written_out() -> None:
    found = quiet_footage.choose([_verdict([0.1, 0.2])], SETTINGS, 1.0)
    assert "expect 480 false events an hour, with 95 % certainty at most 1,438," in found.described()[1]


def test_what_no_threshold_keeps_out_is_said() -> None:
    found = quiet_footage.choose([_hour({100: 1.0, 500: 1.0})], SETTINGS, 1.0)
    assert (found.threshold, found.false_events) == (1.0, 2)
    assert "no threshold achieves that" in "\n".join(found.described())


def test_rates_hold_on_other_footage_of_the_camera() -> None:
    """On independent footage the mean rate is about as promised, and the 95 % bound holds in over 90 % of trials."""
    rng = np.random.default_rng(0)
    n_windows, peaks = 48, 12
    settings = EventConfig(threshold=0.3)

    def some() -> Verdict:
        p = np.full(n_windows, 0.01)
        # peaks are at least four windows apart, so that each is an event
        places = 4 * rng.permutation(n_windows // 4)[: min(rng.poisson(peaks / 2), n_windows // 4)]
        p[places] = rng.uniform(0.3, 1.0, len(places)).round(4) - 1e-4
        return _verdict(p)

    rates, kept = [], []
    for _ in range(150):
        footage = some()
        found = quiet_footage.choose([footage], settings, 3 / (footage.judged_s / 3600))
        # the true rate above the threshold is known, since peaks are uniform from 0.3 to 1
        true_rate = peaks / 2 * (1 - found.threshold) / 0.7 / found.hours
        rates.append(true_rate / found.expected_per_hour)
        kept.append(true_rate <= found.at_most_per_hour)
    assert 0.75 < np.mean(rates) < 1.15
    assert np.mean(kept) > 0.9


def test_a_profile_is_written_from_windows_that_were_kept(tmp_path: Path) -> None:
    head = _model(tmp_path)
    _keep(tmp_path / "kept", "v", _hour({100: 0.7, 500: 0.9}))
    assert kept_windows.are_at(tmp_path / "kept")
    assert not kept_windows.are_at(head)
    quiet, path = QuietConfig(calibrate=tmp_path / "kept"), tmp_path / "door.json"
    with pytest.raises(UserError, match="name the --model"):
        quiet_footage.run(PredictConfig(), quiet, path)
    summary = quiet_footage.run(PredictConfig(model=head), quiet, path)
    assert summary["calibration"]["threshold"] == 0.9001
    assert json.loads(json.dumps(summary)) == summary
    profile = camera_profile.read_for(path, head, SETTINGS)
    assert (profile.threshold, profile.logit_offset) == (0.9001, 0.0)
    assert profile.made_from == {"what": "quiet footage", "hours": 1.0, "videos": 1}
    # again, with a profile that has an offset: the threshold is for the shifted probabilities, and the offset stays
    camera_profile.write(path, CameraProfile(model_files.identity(head), 0.5, 1.0))
    again = quiet_footage.run(PredictConfig(model=head, profile=path), quiet, tmp_path / "again.json")
    assert again["calibration"]["threshold"] == pytest.approx(0.9608, abs=2e-4)
    assert camera_profile.read(tmp_path / "again.json").logit_offset == 1.0


def test_footage_of_which_a_part_was_judged_is_named(tmp_path: Path) -> None:
    head = _model(tmp_path)
    partly = replace(_hour({100: 0.7}), warning="only 3600.0 of 7200.0 s decode")
    _keep(tmp_path / "kept", "v", partly)
    quiet = QuietConfig(calibrate=tmp_path / "kept")
    summary = quiet_footage.run(PredictConfig(model=head), quiet, tmp_path / "door.json")
    assert [f["reason"] for f in summary["failures"]] == ["only 3600.0 of 7200.0 s decode"]


def test_footage_beside_kept_windows_is_named_where_it_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head, kept = _model(tmp_path), tmp_path / "kept"
    judged = small_videos.write(kept / "judged.avi", 1)
    verdict = replace(_hour({100: 0.7}), path=str(judged))
    _keep(kept, "judged", verdict)
    # a video that was judged under a path of another folder, and an annotated video that a run wrote
    _keep(kept, "moved", replace(verdict, path="nights/moved.avi"))
    small_videos.write(kept / "moved.avi", 2)
    annotated = kept / "judged.annotated.avi"
    with WrittenFiles(kept).replacing(annotated, judged) as temporary:
        temporary.write_bytes(judged.read_bytes())
    config, quiet = PredictConfig(model=head), QuietConfig(calibrate=kept)
    with caplog.at_level("INFO"):
        quiet_footage.run(config, quiet, tmp_path / "door.json")
    assert "using the kept windows of 2 videos; no video is judged" in caplog.text
    assert "do not count" not in caplog.text
    later = small_videos.write(kept / "later.avi", 3)
    with caplog.at_level("INFO"):
        quiet_footage.run(config, quiet, tmp_path / "back door.json")
    assert f"use it with --profile '{tmp_path}/back door.json'" in caplog.text, "as a shell takes it"
    said = [record.getMessage() for record in caplog.records if record.name == quiet_footage.__name__]
    assert [text for text in said if "do not count" in text] == [
        f"1 videos below {kept} have no kept windows and do not count: {later}. Judge them with --output first"
    ]


def test_verdicts_are_not_kept_among_the_footage(tmp_path: Path) -> None:
    """Otherwise the next run would take the verdicts of an interrupted one for those of all the footage."""
    head = _model(tmp_path)
    small_videos.write(tmp_path / "quiet" / "v.avi", 1)
    quiet = QuietConfig(calibrate=tmp_path / "quiet")
    for output in ("quiet/verdicts.json", "quiet/out/verdicts.json"):
        with pytest.raises(UserError, match="Name a place outside that folder"):
            quiet_footage.run(PredictConfig(model=head), quiet, tmp_path / "door.json", tmp_path / output)
    assert [path.name for path in (tmp_path / "quiet").iterdir()] == ["v.avi"]


def test_a_profile_replaces_a_profile_and_nothing_else(tmp_path: Path) -> None:
    head = _model(tmp_path)
    _keep(tmp_path / "kept", "v", _hour({100: 0.7}))
    (tmp_path / "v.mp4").write_bytes(b"a video")
    quiet = QuietConfig(calibrate=tmp_path / "kept")
    for name, said in (
        ("v.mp4", "v.mp4 has the name of a video"),
        ("new.MKV", "new.MKV has the name of a video"),
        ("config.json", "config.json already exists and is not a camera profile"),
        ("m.keras", "m.keras already exists and is not a camera profile"),
        ("kept", "kept is a folder"),
    ):
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(UserError, match=said):
            quiet_footage.run(PredictConfig(model=head), quiet, tmp_path / name)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    for _ in range(2):
        quiet_footage.run(PredictConfig(model=head), quiet, tmp_path / "door.json")


def test_stopped_it_says_whether_what_was_judged_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quiet_footage, "run", stopped)
    given = ["--calibrate", "quiet.mp4", "--save-profile", str(tmp_path / "door.json")]
    with pytest.raises(KeyboardInterrupt, match=r"starts from the beginning.*With --output FILE"):
        test_violence_model.main(given)
    with pytest.raises(KeyboardInterrupt) as kept:
        test_violence_model.main([*given, "--output", str(tmp_path / "kept.json")])
    assert not str(kept.value), "the script says that the same command continues"


def test_without_footage_there_is_no_threshold() -> None:
    with pytest.raises(UserError, match="no second of it was judged"):
        quiet_footage.choose([], SETTINGS, 1.0)
    with pytest.raises(UserError, match="must be above 0"):
        QuietConfig(false_events_per_hour=0)


def test_what_is_below_one_is_not_written_as_one() -> None:
    found = quiet_footage.choose([_hour({100: 0.9997})], SETTINGS, 1.0)
    assert found.described()[-1].endswith(" 0.9997")
