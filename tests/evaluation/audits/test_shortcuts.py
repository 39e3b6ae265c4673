"""A set whose classes differ in something other than violence is found; clean sets raise no alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import synthetic

from violence_detection.errors import UserError
from violence_detection.evaluation.audits import shortcuts
from violence_detection.evaluation.audits.shortcuts import AuditedClips
from violence_detection.evaluation.report import limits
from violence_detection.features.cache import FeatureStore
from violence_detection.models import trained_model
from violence_detection.training.training_data import Samples

#: The file format columns of a manifest, for clips that all have the same format.
OF_FORMAT: dict[str, Any] = {"width": 64, "height": 48, "fps": 25.0, "duration_s": 2.0, "codec": "x"}
SIZES = (240, 288, 360, 480, 720)


def made(seed: int, planted: str = "", datasets: tuple[str, ...] = ("one", "two")) -> AuditedClips:
    """Data sets of 24 sources, each source with a format of its own; those of set `one` have clips of one class only.

    In the set `planted` the height follows from the class.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for dataset in datasets:
        for source in range(24):
            height, fps, length_s = rng.choice(SIZES), rng.choice([15, 25, 30]), rng.uniform(2, 6)
            of_source = rng.integers(2)
            for _ in range(rng.integers(1, 6)):
                fight = of_source if dataset == "one" else rng.integers(2)
                side = (240, 288)[fight] if dataset == planted else height
                rows.append(
                    {
                        "dataset": dataset, "source_group": f"{dataset}:{source}", "height": side,
                        "label": ("nonfight", "fight")[fight], "width": side * 4 // 3, "fps": fps,
                        "duration_s": length_s + rng.normal(0, 0.2), "codec": rng.choice(["h264", "FMP4"]),
                    }
                )  # fmt: skip
    frame = pd.DataFrame(rows).assign(clip_id=[f"{i * 7919 % 65536:016x}" for i in range(len(rows))])
    judged = frame[frame.source_group.str.endswith(("0", "1"))]
    return AuditedClips(judged.assign(p_violent=0.5), frame)


@pytest.mark.parametrize("planted", ["one", "two"])
def test_a_set_whose_classes_differ_in_resolution_alone_is_found(planted: str) -> None:
    check = shortcuts.file_format(made(1, planted))
    assert check["done"]
    by_name = {row["dataset"]: row for row in check["datasets"]}
    (other,) = set(by_name) - {planted}
    assert by_name[planted]["verdict"] == shortcuts.ALARM
    assert by_name[planted]["roc_auc"] > 0.95
    assert by_name[planted]["ci95"][0] > 0.8
    assert by_name[other]["verdict"] == shortcuts.NONE
    assert check["datasets"][0]["dataset"] == planted  # the worst comes first


def test_clean_sets_raise_no_alarm_in_ten_seeds() -> None:
    verdicts = [row["verdict"] for seed in range(10) for row in shortcuts.file_format(made(seed))["datasets"]]
    assert verdicts == [shortcuts.NONE] * 20


def test_few_sources_are_said_to_be_too_few_and_one_class_is_not_judged() -> None:
    clips = made(1, "one")
    few = clips.rows[clips.rows.source_group.isin([f"one:{i}" for i in range(9)])]
    assert few.label.value_counts().min() >= shortcuts.FEWEST_OF_CLASS
    calm = clips.rows[(clips.rows.dataset == "two") & (clips.rows.label == "nonfight")]
    check = shortcuts.file_format(AuditedClips(clips.predictions, pd.concat([few, calm])))
    by_name = {row["dataset"]: row for row in check["datasets"]}
    assert by_name["one"]["verdict"] == shortcuts.TOO_FEW
    assert by_name["one"]["roc_auc"] > 0.9
    assert by_name["one"]["attainable"] > shortcuts.ALPHA
    assert by_name["two"]["verdict"] == "not done: fewer than 5 clips of a class"
    assert by_name["two"]["roc_auc"] is None


def test_a_data_set_that_nothing_could_be_told_of_is_not_called_free_of_shortcuts() -> None:
    """A set with too few sources is unknown if alone; beside one with enough it is not counted as compared."""
    model, samples = _linear_model(True), _in_time(60, 3, True)
    rows = samples.rows.assign(**OF_FORMAT, dataset="few", source_group=[f"few:{i % 3}" for i in range(60)])
    few = AuditedClips(rows.assign(p_violent=0.5), rows)
    enough = made(1, datasets=("two",))
    both = AuditedClips(
        pd.concat([few.predictions, enough.predictions]),
        pd.concat([few.rows, enough.rows], ignore_index=True),
    )
    said = {}
    for name, clips in (("few", few), ("both", both)):
        found = shortcuts.audit(clips, model, samples, {}, None)
        assert found["alarms"] == []
        record = {"audits": {"shortcuts": found}}
        limit = limits._shortcuts(record)
        assert limit
        said[name] = (found["comparisons"], found["too_few"], limit.state, limit.text)
    none = "no data set has enough clips and sources of both classes"
    assert said["few"] == (0, 0, limits.UNKNOWN, none)
    assert said["both"][:3] == (1, 0, limits.FINE)
    assert said["both"][3].endswith("do not tell the classes apart, in the 1 comparison with enough sources")


def test_backgrounds_that_cannot_be_looked_at_cost_the_other_checks_nothing() -> None:
    model, samples = _linear_model(True), _in_time(60, 3, True)
    rows = samples.rows.assign(**OF_FORMAT)

    def without_engine(_: AuditedClips) -> tuple[AuditedClips, shortcuts.Values]:
        raise UserError("no OpenVINO here")

    found = shortcuts.audit(
        AuditedClips(rows.assign(p_violent=0.5), rows), model, samples, {}, without_engine
    )
    check = found["checks"]["background"]
    assert (check["done"], check["why_not"]) == (False, "no OpenVINO here")
    assert found["order_of_frames"]["n"] == 60


def _store(folder: Path, clips: AuditedClips, shown: bool, seed: int) -> dict[str, FeatureStore]:
    """Stores with features (5, 12) per clip; with `shown` the middle step tells the class, otherwise none does."""
    store, rng = FeatureStore(folder), np.random.default_rng(seed)
    for clip_id, label in zip(clips.rows.clip_id, clips.rows.label, strict=True):
        values = rng.normal(0, 1, (5, 12))
        values[2, :3] += 3 * (shown and label == "fight")
        store.add(clip_id, {"v0": values}, "made up")
    return {"efficientnet_lite0.rgb": store, "i3d.rgb": store}


def test_a_single_frame_that_shows_the_class_is_found_and_others_are_not(tmp_path: Path) -> None:
    clips = made(2)
    shown = shortcuts.single_frame(clips, _store(tmp_path / "shown", clips, True, 0))
    assert [row["verdict"] for row in shown["datasets"]] == [shortcuts.ALARM] * 2
    assert "efficientnet_lite0.rgb" in shown["what"]
    hidden = shortcuts.single_frame(clips, _store(tmp_path / "hidden", clips, False, 0))
    assert [row["verdict"] for row in hidden["datasets"]] == [shortcuts.NONE] * 2


def test_what_is_not_in_the_cache_is_not_extracted(tmp_path: Path) -> None:
    clips = made(2)
    nothing = shortcuts.single_frame(clips, {"efficientnet_lite0.rgb": FeatureStore(tmp_path)})
    assert not nothing["done"]
    assert nothing["why_not"] == f"no features of these clips in {tmp_path}"
    of_video = shortcuts.single_frame(clips, {"i3d.rgb": FeatureStore(tmp_path)})
    assert of_video["why_not"] == "no backbone of this model sees single frames"


def test_a_damaged_feature_of_a_clip_of_train_ends_this_check_alone_and_is_named(tmp_path: Path) -> None:
    clips = made(2)
    store, *_ = _store(tmp_path, clips, True, 0).values()
    path = synthetic.damage_unseen(store, clips.rows.clip_id[0])

    def of_val_alone(clip_id: str) -> None:
        raise KeyError(clip_id)

    stores = {"efficientnet_lite0.rgb": FeatureStore(tmp_path, of_val_alone)}
    check = shortcuts.single_frame(clips, stores)
    assert not check["done"]
    assert f"the cached feature {path} is missing or damaged" in check["why_not"]
    assert shortcuts.single_frame(clips, stores)["done"], "known as damaged, it counts as not there"


def _in_time(count: int, seed: int, by_order: bool) -> Samples:
    """Samples whose classes differ by the order of steps (fights rise, others fall), or alike in every step."""
    made_up = synthetic.samples(count, seed, 1)
    rng = np.random.default_rng(seed)
    sign = 2 * made_up.labels[:, None, None, None] - 1
    steps = np.linspace(-2, 2, 6)[:, None] if by_order else 1.0
    inputs = {
        name: (sign * steps + rng.normal(0, 0.3, (count, 1, 6, 12))).astype(np.float16)
        for name in made_up.inputs
    }
    return Samples(made_up.rows, inputs, made_up.labels)


def _linear_model(by_order: bool) -> trained_model.TrainedModel:
    """A model that weights steps by their place, so that what rises is a fight, or weights them equally."""
    place = np.linspace(-1, 1, 6)[:, None] if by_order else np.ones((6, 1))
    streams = [keras.Input((6, 12), name=f"efficientnet_lite0.{s}") for s in ("rgb", "motion")]
    weighed = keras.layers.Flatten()(keras.layers.Concatenate()(streams))
    dense = keras.layers.Dense(1, activation="sigmoid")
    net = keras.Model(streams, dense(weighed))
    dense.set_weights([np.broadcast_to(place, (6, 24)).reshape(-1, 1) / 24, np.zeros(1)])
    member = trained_model.Member("linear", net, 1.0)
    return trained_model.TrainedModel(Path(), (), (member,), synthetic.FEATURES, {})


@pytest.mark.parametrize(
    ("by_order", "said"),
    [(True, "the order of moments counts"), (False, "the order of moments hardly counts")],
)
def test_a_model_of_order_fails_when_frames_come_in_another_and_one_of_pictures_does_not(
    by_order: bool, said: str
) -> None:
    model, judged = _linear_model(by_order), _in_time(120, 3, by_order)
    p = model.average(model.average_views(judged.inputs))
    predictions = judged.rows.assign(p_violent=p)
    assert ((p >= 0.5) == (judged.labels == 1)).all()
    found = shortcuts.order_of_frames(predictions, model, judged)
    assert found["verdict"].startswith(said)
    assert found["n"] == 120
    assert (found["loss"] > 0.2) == by_order
    assert found["accuracy"] - found["accuracy_reordered"] == pytest.approx(found["loss"])
    assert found["moved"] == ["features"]
    again = shortcuts.order_of_frames(predictions.sample(frac=1, random_state=0), model, judged)
    assert again == found


def test_that_a_few_clips_lose_nothing_is_no_proof_that_order_hardly_counts() -> None:
    """If none of 40 clips is lost, the interval still reaches a loss of about 7 %."""
    model, judged = _linear_model(False), _in_time(40, 3, False)
    predictions = judged.rows.assign(p_violent=model.average(model.average_views(judged.inputs)))
    found = shortcuts.order_of_frames(predictions, model, judged)
    assert found["n_groups"] >= shortcuts.FEWEST_SOURCES
    assert found["loss"] == 0
    assert found["loss_ci95"][1] > shortcuts.WORTH_A_WORD
    assert found["verdict"] == "no loss that could be told from chance"


def test_frames_of_a_whole_network_are_told_from_features_that_change_places() -> None:
    model, judged = _linear_model(False), _in_time(12, 3, False)
    predictions = judged.rows.assign(p_violent=model.average(model.average_views(judged.inputs)))
    pictures = {"i3d_pictures.rgb": judged.inputs["efficientnet_lite0.rgb"]}
    for more, moved in (({}, ["features"]), (pictures, ["features", "frames"])):
        some = Samples(judged.rows, {**judged.inputs, **more}, judged.labels)
        assert shortcuts.order_of_frames(predictions, model, some)["moved"] == moved
