"""Recordings made of labelled clips: what is shown when, from which sources, and the whole bench on short ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import brightness_judge
import cv2
import numpy as np
import pytest

from benchmarks import (
    bench_recordings,
    event_figures,
    event_rules,
    event_tuning,
    make_recordings,
    recording_plan,
)  # fmt: skip
from benchmarks.event_figures import Recording, Shown
from benchmarks.recording_plan import Clip, Jump, Stock
from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.models import shipped
from violence_detection.prediction import batch
from violence_detection.prediction.config import EventConfig
from violence_detection.system import storage
from violence_detection.training import trained_clips
from violence_detection.video import decode


def clips(kind: str, sources: int, each: int, duration_s: float = 2.0) -> list[Clip]:
    is_fight = kind == "fight"
    return [
        Clip(f"combined_all/{kind}{s}_{i}.mp4", is_fight, "set", f"set:{kind}{s}", duration_s)
        for s in range(sources)
        for i in range(each)
    ]


def test_fights_last_2_to_20_s_come_from_one_source_and_are_apart() -> None:
    stocks = recording_plan.stocks_of([*clips("fight", 12, 15), *clips("quiet", 40, 10)])
    plans = recording_plan.plans(stocks, minutes=20, hours=2, fights_an_hour=60, seed=1)
    assert sum(p.duration_s for p in plans) >= 7200
    fights = [(plan, span) for plan in plans for span in plan.fights]
    assert len(fights) > 60
    assert all(2 <= end_s - start_s <= 20 for _, (start_s, end_s) in fights)
    for plan in plans:
        ends = [0.0, *(end_s for _, end_s in plan.fights)]
        starts = [*(start_s for start_s, _ in plan.fights), plan.duration_s]
        assert all(
            start_s - end_s >= recording_plan.QUIET_S for end_s, start_s in zip(ends, starts, strict=True)
        )
        for start_s, end_s in plan.fights:
            inside = [p for p in plan.pieces if start_s - 1e-6 <= p.start_s < end_s - 1e-6]
            assert {p.clip.is_fight for p in inside} == {True}
            assert len({p.clip.source for p in inside}) == 1
        quiet_s = sum(p.end_s - p.start_s for p in plan.pieces if not p.clip.is_fight)
        assert quiet_s == pytest.approx(plan.duration_s - sum(e - s for s, e in plan.fights))
        assert all(a.end_s == b.start_s for a, b in zip(plan.pieces, plan.pieces[1:], strict=False))


def test_no_fight_is_shown_twice_in_a_recording_while_there_are_others() -> None:
    stocks = recording_plan.stocks_of([*clips("fight", 10, 10), *clips("quiet", 10, 10)])
    plans = recording_plan.plans(stocks, minutes=10, hours=2, fights_an_hour=40, seed=2)
    for plan in plans:
        shown = [p.clip.path for p in plan.pieces if p.clip.is_fight]
        assert len(shown) == len(set(shown))
    fights = stocks["set"][1]
    assert fights is not None
    assert fights.repeats == 0
    assert all(2 <= fights.shown[c.path] <= 6 for c in fights.clips)
    # quiet footage of 200 s cannot fill ten minutes
    assert stocks["set"][0].repeats > 0


def test_one_seed_gives_one_plan_and_more_hours_go_on_with_it() -> None:
    given = [*clips("fight", 4, 4), *clips("quiet", 4, 9)]

    def plans(seed: int, hours: float) -> list[recording_plan.Plan]:
        return recording_plan.plans(recording_plan.stocks_of(given), 5, hours, 30, seed)

    assert plans(0, 0.5) == plans(0, 1.0)[: len(plans(0, 0.5))]
    assert plans(0, 0.5) != plans(1, 0.5)


def test_a_scene_follows_its_source_in_the_order_of_its_numbers() -> None:
    given = [Clip(f"fi{i}.avi", True, "set", "set:block", 1.0) for i in (10, 9, 11, 8)]
    scene = Stock(given).scene(4.0, 0.0, np.random.default_rng(0))
    numbers = [int(c.path[2:-4]) for c in scene]
    first = numbers[0]
    assert numbers == [*range(first, 12), *range(8, first)]


def test_a_source_with_too_little_is_no_fight() -> None:
    with pytest.raises(ValueError, match="no source has clips of 2 s"):
        Stock([Clip("a.mp4", True, "set", "set:a", 1.2)]).scene(5.0, 2.0, np.random.default_rng(0))


def test_each_model_has_sources_that_it_does_not_know_and_parts_share_none() -> None:
    given = [*clips("fight", 8, 3), *clips("quiet", 8, 3)]
    known = [{f"set:fight{i}" for i in range(4)}, {"set:fight4", "set:fight5", "set:fight0"}]
    first, second = ({c.source for c in part} for part in make_recordings.divided(given, known, 2, 0))
    assert not first & second
    assert not first & known[0]
    assert not second & known[1]
    # both models were trained on it
    assert "set:fight0" not in first | second
    assert {"set:fight4", "set:fight5"} <= first
    with pytest.raises(UserError, match="no clips are left to show"):
        make_recordings.divided(given, [{c.source for c in given}], 1, 0)


def test_a_data_set_left_out_of_one_training_is_whole_in_the_part_of_its_model() -> None:
    def of(dataset: str, kind: str) -> list[Clip]:
        return [replace(c, dataset=dataset, source=f"{dataset}:{c.source}") for c in clips(kind, 6, 2)]

    a, b = [*of("a", "fight"), *of("a", "quiet")], [*of("b", "fight"), *of("b", "quiet")]
    camera = of("camera", "quiet")
    # each model's val clips, here the sources that end in 0, are not among those it was trained on
    trained = [{c.source for c in each if not c.source.endswith("0")} for each in (b, a)]
    parts = make_recordings.divided([*a, *b, *camera], trained, 2, seed=0)
    assert [{c.dataset for c in part} for part in parts] == [{"a", "camera"}, {"b", "camera"}]
    assert sum(map(len, parts)) == len(a) + len(b) + len(camera)


def test_fights_without_a_quiet_clip_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    lone = [replace(c, dataset="lone", source=f"lone:{c.source}") for c in clips("fight", 4, 2)]
    parts = make_recordings.divided([*clips("fight", 4, 2), *clips("quiet", 4, 2), *lone], [set()], 1, seed=0)
    assert {c.dataset for c in parts[0]} == {"set"}
    assert "no recordings of lone" in caplog.text


def test_light_changes_at_once_and_back_again() -> None:
    frame = np.full((4, 4, 3), 100, np.uint8)
    jumps = [Jump(2.0, 3.0, 1.4, 10.0), Jump(5.0, 6.0, 3.0, 0.0)]
    values = [make_recordings.lit(frame, jumps, t)[0, 0, 0] for t in (1.9, 2.0, 2.9, 3.0, 5.5)]
    assert values == [100, 150, 150, 100, 255]


def _recording(name: str, *sources: str) -> Recording:
    return Recording(name, "set", 60.0, (), (), tuple(Shown(float(i), s) for i, s in enumerate(sources)))


def test_halves_share_no_source_not_even_by_way_of_a_third_recording() -> None:
    made = [_recording("a", "x", "y"), _recording("b", "y", "z"), _recording("c", "z"), _recording("d", "w")]
    halves = event_tuning.apart(made)
    assert sorted([r.name for r in half] for half in halves) == [["a", "b", "c"], ["d"]]
    with pytest.raises(UserError, match="--parts 2"):
        event_tuning.apart(made[:3])


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Bright fights and dark quiet clips of 2 s, eight sources a class; `fast` was trained on one of the fights."""
    trained = trained_clips.read(shipped.find(Path("fast")))
    assert trained is not None
    had = trained.iloc[0]
    rows = []
    for i in range(16):
        label = "fight" if i % 2 else "nonfight"
        path = tmp_path / "combined_all" / "train" / f"{label}{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
        for _ in range(20):
            out.write(np.full((48, 64, 3), 220 if i % 2 else 30, np.uint8))
        out.release()
        rows.append(
            dict.fromkeys(manifest.COLUMNS, "")
            | {
                "clip_id": had.clip_id if i == 15 else f"{i:016x}", "path": f"train/{path.name}", "label": label,
                "dataset": "set", "source_group": f"own:{i // 2}{label}", "split": "train", "duration_s": 2.0,
                "fps": 10.0, "width": 64, "height": 48, "n_frames": 20,
            }
        )  # fmt: skip
    storage.write_csv(tmp_path / "combined_all" / "manifest.csv", manifest.COLUMNS, rows)
    return tmp_path


def test_recordings_are_made_judged_measured_and_tuned(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch, "load_judge", brightness_judge.load)
    monkeypatch.setattr(recording_plan, "JUMP_EVERY_S", 1e6)
    monkeypatch.setattr(recording_plan, "SIZES", ((64, 48), (96, 72)))
    folder, output = data_root / "recordings", data_root / "bench"
    make = [
        "--data-root", str(data_root), "--models", "fast", "--parts", "2", "--output", str(folder), "--minutes", "1",
        "--hours", "0.02", "--fights-an-hour", "200", "--seed", "2",
    ]  # fmt: skip
    assert make_recordings.main(make) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["recordings"], made["clips_left_out"]) == (2, 1)
    rows = storage.read_csv(folder / "recordings.csv")
    for row in rows:
        info = decode.probe(folder / row["file"])
        assert info.duration_s == pytest.approx(float(row["duration_s"]), abs=0.2)
        assert (info.width, info.height) == (int(row["width"]), int(row["height"]))
    footage = storage.read_csv(folder / "footage.csv")
    assert "own:7fight" not in {row["source"] for row in footage}
    truth = storage.read_csv(folder / "truth.csv")
    assert len(truth) == made["fights"] > 0
    first = folder / truth[0]["file"]
    info = decode.probe(first)
    moments = [float(truth[0]["start_s"]) - 0.5, float(truth[0]["start_s"]) + 0.5]
    dark, bright = (f.mean() for _, f in decode.moments(first, info, [int(m * info.fps) for m in moments]))
    assert dark < 60 < 180 < bright
    written = first.stat().st_mtime_ns
    assert make_recordings.main(make) == 0
    assert first.stat().st_mtime_ns == written

    capsys.readouterr()
    bench = ["--recordings", str(folder), "--output", str(output), "--tune"]
    monkeypatch.setattr(event_rules, "SMOOTHING_S", (0.0, 10.0))
    monkeypatch.setattr(event_rules, "MIN_DURATION_S", (0.0,))
    assert bench_recordings.main([*bench, "--models", "fast"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["recordings"], found["not_judged"], found["fights"]) == (2, 0, len(truth))
    at_half = found["events"]["at_0.5"]
    assert at_half["recall_by_overlap"] == 1.0
    assert at_half["false"] == 0
    assert 0 < at_half["delay_s"]["median"] <= 7.5
    assert [half["settings"]["smoothing_s"] for half in found["tuned"]["halves"]] == [0.0, 0.0]
    curves = storage.read_csv(output / "curves.csv")
    assert {row["rule"] for row in curves} == {"touching", "events"}
    picture = cv2.imread(str(output / "curves.png"))
    assert picture is not None
    assert picture.std() > 5

    again, missing = bench_recordings.read(folder, EventConfig())
    assert (len(again), missing) == (2, 0)
    rule = event_rules.by_settings(EventConfig())
    assert event_figures.figures_at(event_figures.tally(again, rule, [0.5]), 0).items() <= at_half.items()
