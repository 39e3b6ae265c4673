"""Learning from marks: a threshold that helps on other videos, or none, and the camera's own offset of the logit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from violence_detection.errors import UserError
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Event, JudgedWindow, Verdict
from violence_detection.prediction.review import learning
from violence_detection.prediction.review.learning import Mistakes
from violence_detection.prediction.review.marks import Mark, MarkedVideo, Marks

SETTINGS = EventConfig()


def _verdict(path: str, ps: list[float]) -> Verdict:
    """A verdict on windows of 5 s, end to end."""
    windows = tuple(JudgedWindow(5.0 * i, 5.0 * i + 5, p) for i, p in enumerate(ps))
    return Verdict(path, windows, SETTINGS, 5.0 * len(ps), 5.0 * len(ps))


def _marked(verdict: Verdict, fights: set[int]) -> list[Mark]:
    """Mark events with a window of `fights` right and the others wrong, and the other windows of `fights` missed."""
    marks = []
    for event in verdict.events:
        right = any(event.start_s <= verdict.windows[i].middle_s < event.end_s for i in fights)
        marks.append(Mark(event.start_s, event.end_s, "right" if right else "wrong"))
    for i in fights:
        window = verdict.windows[i]
        if not any(m.overlaps(window.start_s, window.end_s) for m in marks):
            marks.append(Mark(window.start_s, window.end_s, "missed"))
    return sorted(marks, key=lambda m: m.start_s)


def _camera(quiet_p: float, fight_p: float, videos: int = 6) -> tuple[list[Verdict], Marks]:
    """Videos of a camera, each with two harmless windows of about `quiet_p` and a fight of about `fight_p`."""
    rng = np.random.default_rng(5)
    verdicts, by_video = [], {}
    for i in range(videos):
        ps = rng.uniform(0.01, 0.2, 30)
        ps[[4, 12]] = quiet_p + rng.uniform(-0.03, 0.03, 2)
        ps[22] = fight_p + rng.uniform(-0.02, 0.02)
        verdict = _verdict(f"v{i}.mp4", np.round(ps, 4).tolist())
        verdicts.append(verdict)
        by_video[verdict.path] = _marked(verdict, {22})
    return verdicts, Marks(by_video, frozenset(by_video), "m")


def test_wrong_events_alone_raise_the_threshold_no_higher_than_they_reach(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verdicts, marks = _camera(0.65, 0.1)
    wrong = {name: [m for m in found if m.mark == "wrong"] for name, found in marks.by_video.items()}
    learned = learning.learn(verdicts, Marks(wrong, frozenset(), "m"), SETTINGS, "m")
    assert learned.profile
    assert 0.67 < learned.profile.threshold < 0.7
    assert learned.figures["on_others"]["false_events"] <= 2
    learning.say(learned, Path("camera.json"))
    assert "no fight is marked" in caplog.text


def test_without_a_new_threshold_nothing_is_said_of_it(caplog: pytest.LogCaptureFixture) -> None:
    ps = [0.1, 0.9] * 10
    noisy, *quiet = (_verdict(f"v{i}.mp4", ps if i == 0 else [0.1] * 20) for i in range(3))
    marks = Marks({noisy.path: _marked(noisy, set()), **{v.path: [] for v in quiet}}, frozenset(), "m")
    learned = learning.learn([noisy, *quiet], marks, SETTINGS, "m")
    assert learned.profile is None
    learning.say(learned, Path("camera.json"))
    assert "no fight is marked" not in caplog.text


def test_fights_that_are_sure_keep_the_threshold_away_from_what_is_wrong() -> None:
    verdicts, _ = _camera(0.65, 0.92)
    sure = []
    for v in verdicts:
        windows = [replace(w, p_violent=1.0) if i == 22 else w for i, w in enumerate(v.windows)]
        sure.append(replace(v, windows=tuple(windows)))
    marks = Marks({v.path: _marked(v, {22}) for v in sure}, frozenset(), "m")
    assert learning.learn(sure, marks, SETTINGS, "m").figures["after"]["threshold"] > 0.9


def test_a_camera_with_false_alarms_gets_a_higher_threshold() -> None:
    verdicts, marks = _camera(0.65, 0.92)
    learned = learning.learn(verdicts, marks, SETTINGS, "m")
    assert learned.profile
    assert learned.figures["before"] == {"threshold": 0.5, "false_events": 12, "missed_fights": 0}
    assert learned.figures["on_others"] == {"false_events": 0, "missed_fights": 0}
    later = [learned.profile.verdict(v).events for v in verdicts]
    assert [[(e.start_s, e.end_s) for e in events] for events in later] == [[(110.0, 115.0)]] * 6


def test_missed_fights_bring_a_lower_threshold() -> None:
    verdicts, marks = _camera(0.1, 0.4)
    learned = learning.learn(verdicts, marks, SETTINGS, "m")
    assert learned.profile is None, "six marks are too few"
    assert learned.too_few
    assert "too few marks: 6 in 6 videos" in learned.why_not
    verdicts, marks = _camera(0.1, 0.4, videos=10)
    learned = learning.learn(verdicts, marks, SETTINGS, "m")
    assert learned.profile
    assert learned.figures["before"]["missed_fights"] == 10
    assert learned.figures["on_others"] == {"false_events": 0, "missed_fights": 0}
    assert all(len(learned.profile.verdict(v).events) == 1 for v in verdicts)


def test_what_helps_only_where_it_was_learnt_changes_nothing() -> None:
    """In each video, the false alarm has the same P(violent) as the fight, which differs between videos."""
    verdicts, by_video = [], {}
    for i in range(6):
        p = 0.55 + 0.07 * i
        verdict = _verdict(f"v{i}.mp4", [0.1, p, 0.1, 0.1, 0.1, p, 0.1])
        verdicts.append(verdict)
        by_video[verdict.path] = _marked(verdict, {5})
    learned = learning.learn(verdicts, Marks(by_video, frozenset(), "m"), SETTINGS, "m")
    assert learned.profile is None
    assert "no other threshold" in learned.why_not
    before = learned.figures["before"]
    assert sum(learned.figures["on_others"].values()) >= before["false_events"] + before["missed_fights"]


def test_the_offset_undoes_what_the_camera_adds() -> None:
    """The camera's probabilities are calibrated but for 1.5 that is added to each logit."""
    rng = np.random.default_rng(1)
    verdicts, by_video = [], {}
    for i in range(12):
        true = 1 / (1 + np.exp(-rng.normal(-1.0, 1.5, 120)))
        shown = 1 / (1 + np.exp(-(np.log(true / (1 - true)) + 1.5)))
        verdict = _verdict(f"v{i}.mp4", shown.round(4).tolist())
        verdicts.append(verdict)
        fights = np.flatnonzero(rng.uniform(size=120) < true)
        by_video[verdict.path] = [Mark(5.0 * n, 5.0 * n + 5, "missed") for n in fights.tolist()]
    learned = learning.learn(verdicts, Marks(by_video, frozenset(by_video), "m"), SETTINGS, "m")
    assert learned.profile
    assert learned.profile.logit_offset == pytest.approx(-1.5, abs=0.3)
    calibration = learned.figures["calibration"]
    assert calibration["log_loss_after"] < calibration["log_loss_before"] - 0.1
    again = learning.learn(
        verdicts, Marks(by_video, frozenset(by_video), "m"), SETTINGS, "m", learned.profile
    )
    assert again.profile is None or abs(again.profile.logit_offset - learned.profile.logit_offset) < 0.05
    smoothed = learning.learn(
        verdicts, Marks(by_video, frozenset(by_video), "m"), EventConfig(smoothing_s=15.0), "m"
    )
    assert "smoothed" in smoothed.figures["calibration"]["why_not"]
    # the --offset of events does not move with the logits, so that events would end by a rule that was not measured
    ending = learning.learn(verdicts, Marks(by_video, frozenset(by_video), "m"), EventConfig(offset=0.3), "m")
    assert "--offset is given" in ending.figures["calibration"]["why_not"]
    assert ending.profile is None or ending.profile.logit_offset == 0


def test_windows_that_no_network_saw_say_nothing_of_the_offset() -> None:
    """Still windows stay at 0 whatever the offset is, even in a fight that was missed."""
    rng = np.random.default_rng(1)
    plain, with_still, by_video = [], [], {}
    for i in range(12):
        true = 1 / (1 + np.exp(-rng.normal(-1.0, 1.5, 120)))
        shown = 1 / (1 + np.exp(-(np.log(true / (1 - true)) + 1.5)))
        verdict = _verdict(f"v{i}.mp4", shown.round(4).tolist())
        fights = np.flatnonzero(rng.uniform(size=120) < true)
        by_video[verdict.path] = [Mark(5.0 * n, 5.0 * n + 5, "missed") for n in fights.tolist()]
        still = tuple(
            JudgedWindow(600.0 + 5 * n, 605.0 + 5 * n, 0.0, still=True) for n in range(4 * (i == 0))
        )
        by_video[verdict.path] += [Mark(600.0, 620.0, "missed")] * (i == 0)
        with_still.append(replace(verdict, windows=verdict.windows + still, duration_s=620.0, judged_s=620.0))
        plain.append(verdict)
    marks = Marks(by_video, frozenset(by_video), "m")
    one, other = (learning.learn(verdicts, marks, SETTINGS, "m") for verdicts in (plain, with_still))
    assert one.profile
    assert other.profile
    assert other.profile.logit_offset == one.profile.logit_offset == pytest.approx(-1.5, abs=0.3)
    assert other.figures["calibration"] == one.figures["calibration"]


@pytest.mark.parametrize("still", [True, False])
def test_without_a_window_that_says_anything_of_it_no_offset_is_learnt(still: bool) -> None:
    """All windows are still, or have only the edge of a fight."""
    windows = tuple(JudgedWindow(5.0 * i, 5.0 * i + 5, 0.0, still=still) for i in range(4))
    verdicts = [replace(_verdict(f"v{i}.mp4", [0.0] * 4), windows=windows) for i in range(3)]
    starts = (0.0, 5.0, 10.0, 15.0)
    missed = [Mark(start_s, start_s + (5 if still else 1), "missed") for start_s in starts]
    marks = Marks({v.path: missed for v in verdicts}, frozenset(v.path for v in verdicts), "m")
    calibration = learning.learn(verdicts, marks, SETTINGS, "m").figures["calibration"]
    assert calibration == {"why_not": "no window can be used: all are still or have only the edge of a fight"}


def test_a_lower_threshold_than_the_offset_is_kept_with_the_one_that_was_measured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A profile once named the --offset that it was measured with, and runs with the profile refused that offset."""
    verdicts, marks = _camera(0.1, 0.4, videos=10)
    learned = learning.learn(verdicts, marks, EventConfig(offset=0.45), "m")
    assert learned.profile
    assert learned.profile.events["offset"] == learned.profile.threshold < 0.45
    learning.say(learned, Path("camera.json"))
    assert f"later runs give --offset {learned.profile.threshold:g}" in caplog.text
    later = EventConfig(**{**learned.profile.events, "threshold": learned.profile.threshold})
    found = [learned.profile.verdict(replace(v, events_by=later)).events for v in verdicts]
    assert [len(events) for events in found] == [1] * 10
    assert learned.figures["on_others"] == {"false_events": 0, "missed_fights": 0}
    caplog.clear()
    kept = learning.learn(verdicts, marks, EventConfig(offset=0.2), "m")
    assert kept.profile
    assert kept.profile.events["offset"] == 0.2
    learning.say(kept, Path("camera.json"))
    assert "later runs give --offset" not in caplog.text


def test_the_offset_of_a_profile_with_another_scale_is_of_that_scale() -> None:
    """With the profile the model's 0.6 becomes 0.75, which is above the offset: there is one event, and not two."""
    by_video = {f"v{i}.mp4": [Mark(0.0, 20.0, "wrong")] * 3 for i in range(4)}
    verdicts = [_verdict(name, [0.9, 0.6, 0.9, 0.1]) for name in by_video]
    now = CameraProfile("m", 0.8, math.log(2))
    settings = now.settings(EventConfig(0.8, offset=0.7, merge_gap_s=0))
    assert [len(now.verdict(replace(v, events_by=settings)).events) for v in verdicts] == [1] * 4
    marked = {
        name: [Mark(0.0, 5.0, "right"), Mark(5.5, 9.5, "right"), Mark(10.0, 15.0, "right")]
        for name in by_video
    }
    of_one = learning.learn(verdicts, Marks(marked, frozenset(), "m"), settings, "m", now)
    assert of_one.figures["before"]["missed_fights"] == 0


def test_an_event_over_the_whole_night_is_no_good_find() -> None:
    night, fight = Event(0.0, 600.0, 0.9, 300.0), Mark(100.0, 110.0, "right")
    assert learning.mistakes_of([night], [fight], False, [night]) == Mistakes(1, 0)
    assert learning.mistakes_of([Event(95.0, 115.0, 0.9, 105.0)], [fight], True, []) == Mistakes(0, 0)
    wrong = Mark(200.0, 210.0, "wrong")
    assert learning.mistakes_of([Event(195.0, 215.0, 0.9, 205.0)], [fight, wrong], True, []) == Mistakes(1, 1)


def test_events_that_nobody_marked_count_where_somebody_looked_or_none_was_before() -> None:
    event = Event(10.0, 20.0, 0.9, 15.0)
    assert learning.mistakes_of([event], [], True, [event]) == Mistakes(1, 0)
    assert learning.mistakes_of([event], [], False, []) == Mistakes(1, 0)
    assert learning.mistakes_of([event], [], False, [event]) == Mistakes(0, 0)


def test_marks_of_another_model_or_of_other_videos_are_refused() -> None:
    verdicts, marks = _camera(0.65, 0.92)
    with pytest.raises(UserError, match="another model"):
        learning.learn(verdicts, marks, SETTINGS, "another")
    elsewhere = [replace(v, path=f"/elsewhere/{v.path}") for v in verdicts]
    with pytest.raises(UserError, match=r"none of the marked videos .* \(marked, for example: v0\.mp4"):
        learning.learn(elsewhere, marks, SETTINGS, "m")


def test_marks_of_videos_that_are_not_there_are_named(caplog: pytest.LogCaptureFixture) -> None:
    verdicts, marks = _camera(0.65, 0.92)
    learned = learning.learn(verdicts[:5], marks, SETTINGS, "m")
    assert learned.figures["videos"] == 5
    assert (
        "1 of 6 marked videos are not among those judged, so their marks do not count: v5.mp4." in caplog.text
    )
    caplog.clear()
    learning.learn(verdicts, marks, SETTINGS, "m")
    assert not caplog.text


def test_a_second_lesson_begins_where_the_first_ended() -> None:
    """The threshold of 0.8 in the first profile is 0.6667 for the model, which leaves fewer than 12 false events."""
    verdicts, marks = _camera(0.65, 0.92)
    first = CameraProfile("m", 0.8, math.log(2))
    learned = learning.learn(verdicts, marks, SETTINGS, "m", first)
    assert learned.figures["before"]["threshold"] == pytest.approx(0.6667, abs=1e-4)
    assert learned.figures["before"]["false_events"] < 12


def _camera_at(folder: str) -> tuple[list[Verdict], Marks]:
    """Verdicts on recordings of a camera that were judged in their own folder, and marks as its page saves them."""
    verdicts, marks = _camera(0.65, 0.92)
    verdicts = [replace(v, real_path=f"{folder}/{v.path}") for v in verdicts]
    videos = {v.path: MarkedVideo(v.real_path, v.duration_s) for v in verdicts}
    return verdicts, replace(marks, videos=videos)


def test_marks_of_another_camera_are_refused_though_its_recordings_have_the_same_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verdicts, marks = _camera_at("/gate")
    others, _ = _camera_at("/hall")
    assert learning.learn(verdicts, marks, SETTINGS, "m").profile
    assert not caplog.text
    with pytest.raises(
        UserError, match=r"other recordings with the same names: marked was /gate/v0\.mp4 .*/hall/v0"
    ):
        learning.learn(others, marks, SETTINGS, "m")
    learned = learning.learn([*verdicts[:5], others[5]], marks, SETTINGS, "m")
    assert learned.figures["videos"] == 5
    assert "1 of 6 marked videos are other recordings with the same names" in caplog.text
    caplog.clear()
    assert learning.learn(others, replace(marks, videos={}), SETTINGS, "m").profile
    assert "do not say where 6 of 6 marked videos were" in caplog.text


def test_marks_find_their_camera_among_several_judged_from_elsewhere() -> None:
    """Of two recordings with the same name, one verdict has the name as its path, and the other the whole path."""
    verdicts, marks = _camera_at("/gate")
    others, of_others = _camera_at("/hall")
    quiet = [replace(v, windows=tuple(replace(w, p_violent=0.1) for w in v.windows)) for v in others]
    away = [replace(v, path=v.real_path, given_as=v.path) for v in verdicts]
    at_hall = learning.learn([*quiet, *away], of_others, SETTINGS, "m")
    assert (at_hall.figures["videos"], at_hall.figures["before"]["missed_fights"]) == (6, 6)
    at_gate = learning.learn([*quiet, *away], marks, SETTINGS, "m")
    assert (at_gate.figures["videos"], at_gate.figures["before"]["false_events"]) == (6, 12)


def test_marks_of_a_recording_that_another_has_replaced_do_not_count() -> None:
    verdicts, marks = _camera_at("/gate")
    with pytest.raises(
        UserError, match=r"marked was /gate/v0\.mp4 of 150 s, judged was /gate/v0\.mp4 of 160 s"
    ):
        learning.learn([replace(v, duration_s=160.0) for v in verdicts], marks, SETTINGS, "m")
