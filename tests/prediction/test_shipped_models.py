"""The shipped models, with the published weights that they need, give real clips the probabilities recorded here.

The models were trained on these clips, so the figures do not show how good they are, only that the way from a file
to P(violent) has not changed.
"""

from __future__ import annotations

from pathlib import Path

import published_weights
import pytest

import violence_detection as vd
from benchmarks import bench_predict
from violence_detection.prediction.detector import Detector
from violence_detection.video.sources import FileSource

pytestmark = [pytest.mark.slow, pytest.mark.real]
BACKBONES = {"fast": ["i3d_pictures"], "accurate": ["i3d_pictures", "dinov2_spread", "movenet_poses"]}
#: P(violent) of clips of each data set, computed in 8 bits, by `fast` and by `accurate`. Two get a closer look.
SAID = {
    "hockey_fights/data/fi26_xvid.avi": (0.971, 0.987),
    "hockey_fights/data/no140_xvid.avi": (0.061, 0.062),
    "real_life_violence/Real Life Violence Dataset/NonViolence/NV_468.mp4": (0.182, 0.071),
    "real_life_violence/Real Life Violence Dataset/Violence/V_756.mp4": (0.775, 0.888),
    "surveillance_fight/fight/fi061.mp4": (0.900, 0.989),
    "surveillance_fight/fight/fi116.mp4": (0.501, 0.851),
    "surveillance_fight/noFight/nofi063.mp4": (0.034, 0.022),
    "surveillance_fight/noFight/nofi070.mp4": (0.287, 0.071),
    "violent_flows/2/Violence/football_violence__Football_Hooligans_Cardiff_v_Barnsley_2003__MorningGlory1997__mSS"
    "7490HcJI.avi": (0.713, 0.720),
}  # fmt: skip
#: How far other processors, which compute in 16 or 32 bits, may be off; the largest difference that was measured is
#: 0.05 (docs/results.md, "What judging costs").
OFF = 0.06


@pytest.fixture(scope="module", params=["fast", "accurate"])
def detector(request: pytest.FixtureRequest) -> Detector:
    """Each shipped model in turn; skipped if its published weights are missing."""
    for backbone in BACKBONES[request.param]:
        published_weights.of(backbone)
    # auto first checks whether 8 bits keep the results on this machine, which takes a minute for `accurate`
    return vd.load(request.param, precision="auto" if request.param == "fast" else "float32")


def test_clips_get_the_probabilities_that_they_had(detector: Detector, real_clips: Path) -> None:
    column = list(BACKBONES).index(Path(detector.config.model or "").name)
    said = {clip: detector.judge(real_clips / "raw" / clip).p_violent for clip in SAID}
    assert said == {clip: pytest.approx(p[column], abs=OFF) for clip, p in SAID.items()}


def test_a_video_that_comes_as_a_stream_gets_the_windows_of_its_file(
    detector: Detector, real_clips: Path
) -> None:
    path = real_clips / "raw" / "real_life_violence/Real Life Violence Dataset/NonViolence/NV_300.mp4"
    in_file = [(w.start_s, w.end_s, w.p_violent) for w in detector.judge(path).windows]
    # the second window gets a closer look
    assert len(in_file) == 2
    assert [(w.start_s, w.end_s, w.p_violent) for w in detector.watch(FileSource(path))] == in_file


def test_people_who_fall_and_jump_are_no_fight(detector: Detector, real_clips: Path) -> None:
    videos = sorted((real_clips / "quiet").rglob("*.*"))[::22]
    assert videos
    for video in videos:
        verdict = detector.judge(video)
        assert not verdict.events
        assert verdict.p_violent < 0.4


def test_the_plain_way_that_speed_is_measured_against_says_the_same(real_clips: Path) -> None:
    """If only one of the two took a closer look, the speeds compared would be of different work."""
    published_weights.of("i3d_pictures")
    detector = vd.load("fast", precision="float32")
    plain = bench_predict.PlainWay(detector)
    clips = [clip for clip in SAID if clip.startswith("surveillance_fight")]
    assert {clip: plain.judge(real_clips / "raw" / clip) for clip in clips} == {
        clip: pytest.approx(detector.judge(real_clips / "raw" / clip).p_violent, abs=0.01) for clip in clips
    }
