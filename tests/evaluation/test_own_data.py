"""A model is measured on a user's own clips: each content once, by source; clips it was trained on are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_videos
import stand_in
import synthetic

from violence_detection.combine import combine, manifest, val_ledger
from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.combine.cut import cutting
from violence_detection.combine.cut.cutting import CutResult
from violence_detection.errors import UserError
from violence_detection.evaluation import evaluate, metrics, own_data
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.measure import Evaluation
from violence_detection.evaluation.report import report
from violence_detection.evaluation.training_overlap import Comparison
from violence_detection.find import combined_folders
from violence_detection.find.inventory import Inventory
from violence_detection.system import locks
from violence_detection.training import heads, trained_clips

CLASSES = ("fight", "nonfight")


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch.setattr)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 40 clips in raw/mine, combined, and a model in model/ trained on them; tests copy it."""
    root = tmp_path_factory.mktemp("root")
    for seed in range(20):
        for offset, label in enumerate(CLASSES):
            small_videos.write(root / "raw/mine" / label / f"{seed}.avi", 100 * offset + seed)
    synthetic.train_on_clips(root, root / "model")
    return root


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """12 clips of three sources that the model has not seen, and two copies of one, the second with the other label."""
    for k in range(6):
        for offset, label in enumerate(CLASSES):
            small_videos.write(
                tmp_path / "new clips" / label / f"cam{k % 3}" / f"{k}.avi", 500 + 100 * offset + k
            )
    shutil.copy(tmp_path / "new clips/fight/cam0/0.avi", tmp_path / "new clips/fight/cam1/copy.avi")
    shutil.copy(tmp_path / "new clips/fight/cam0/0.avi", tmp_path / "new clips/nonfight/cam1/same.avi")
    return tmp_path / "new clips"


def measure(root: Path, report_folder: Path, **settings: object) -> Evaluation:
    config = EvaluationConfig(
        output=report_folder,
        **{"models": root / "model", "data_root": root, "workers": 1, **settings},  # type: ignore[arg-type]
    )
    return evaluate.run(config, "python test_ensemble.py")


def test_a_folder_of_new_clips_is_measured_by_source(root: Path, new: Path, tmp_path: Path) -> None:
    (new / "nonfight/cam1/same.avi").unlink()
    scored = measure(root, tmp_path / "report", data=new)
    rows = scored.predictions
    assert scored.n == len(rows) == 12
    assert set(rows.dataset) == {"new_clips"}
    assert set(rows.source_group) == {"new_clips:cam0", "new_clips:cam2"}  # the copy joins cam0 and cam1
    assert rows.groupby("label").size().tolist() == [6, 6]
    assert (rows.label == rows.path.map(lambda p: Path(p).parts[-3])).all()
    assert rows.p_violent.notna().all()
    right = ((rows.p_violent >= scored.model.threshold) == (rows.label == "fight")).to_numpy()
    assert scored.accuracy == pytest.approx(right.mean())
    assert scored.ci95 == pytest.approx(
        metrics.accuracy_interval(right, rows.source_group.to_numpy()), abs=1e-4
    )
    assert (scored.overlap.touched, scored.failures) == (0, [])


def test_labels_without_clips_of_ones_own_look_at_nothing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--labels fight=Streit would do nothing"):
        measure(root, tmp_path / "report", labels=("fight=Streit",))


def test_the_report_says_what_it_rests_on_and_what_it_could_not_compute(
    root: Path, new: Path, tmp_path: Path
) -> None:
    measure(root, tmp_path / "report", own=(f"other={new}",))
    figures = json.loads((tmp_path / "report" / report.METRICS_NAME).read_text())
    assert figures["data"] == "own clips"
    assert figures["baselines"] is None
    assert figures["baselines_note"] == "not computed: no training clips in this set"
    assert figures["split"] == f"own clips: {new}"
    seen = figures["seen_in_training"]
    assert (seen["training_clips"], seen["touched"]) == (32, 0)
    assert (seen["same_clip"]["found"], seen["near_copy"]["found"]) == (0, 0)
    assert (seen["same_source"]["checked"], seen["same_source"]["found"]) == (False, None)
    assert "own clips are named by their folders" in seen["same_source"]["not_checked"]
    page = (tmp_path / "report" / report.PAGE_NAME).read_text()
    assert "not computed: no training clips in this set" in page
    assert 'id="trained-on"' not in page
    assert "not checked: own clips are named by their folders" in page
    assert page.count("data:image/png") > 6  # plots in a light and a dark theme
    assert list(figures["by_dataset"]) == ["other"]


def test_val_has_its_baselines_and_what_was_looked_for_in_training(root: Path, tmp_path: Path) -> None:
    measure(root, tmp_path / "report")
    figures = json.loads((tmp_path / "report" / report.METRICS_NAME).read_text())
    assert figures["n"] == 8
    assert figures["baselines"]["majority_class"]["n"] == 8
    assert figures["data"] == "own clips"
    assert figures["split"].endswith(", the manifest that the model was trained on")
    compared = {"checked": True, "compared": 8, "found": 0, "not_checked": ""}
    assert figures["seen_in_training"] == {
        "clips": 8, "training_clips": 32, "touched": 0, "same_clip": {**compared, "roles": {}},
        "same_source": compared, "near_copy": compared, "datasets": ["mine"],
    }  # fmt: skip
    assert "none of 8" in (tmp_path / "report" / report.PAGE_NAME).read_text()


def _combined_anew(root: Path, folder: Path, mirrored: bool) -> Path:
    """Combine the same clips with another seed, from files that are a little brighter and smaller, or also mirrored."""
    for seed in range(20):
        for offset, label in enumerate(CLASSES):
            small_videos.write(
                folder / "raw/mine" / label / f"{seed}.avi",
                100 * offset + seed,
                width=80,
                height=56,
                brightness=6,
                mirrored=mirrored,
            )
    combine.run(CombineConfig(data_root=folder, own=(f"mine={folder}/raw/mine",), workers=1, seed=7))
    return folder


@pytest.mark.parametrize("mirrored", [False, True])
def test_clips_encoded_anew_and_combined_with_another_seed_are_found_again(
    root: Path, tmp_path: Path, mirrored: bool
) -> None:
    other = _combined_anew(root, tmp_path / "other", mirrored)
    made = trained_clips.read(root / "model")
    assert made is not None
    scored = measure(root, tmp_path / "report", data_root=other)
    overlap = scored.overlap
    assert overlap.same_clip.found == 0
    names = [Path(p).stem for p in scored.predictions.source_path]
    labels = scored.predictions.label.tolist()
    held_out = manifest.read(root / "combined_all").query("split == 'val'")
    known = {(Path(p).stem, label) for p, label in zip(held_out.source_path, held_out.label, strict=True)}
    wanted = sum(clip not in known for clip in zip(names, labels, strict=True))
    assert wanted > 0
    assert (overlap.near_copy.found, overlap.near_copy.compared) == (wanted, overlap.clips)
    assert overlap.touched == wanted
    assert (
        "another manifest than the one" in json.loads((tmp_path / "report/metrics.json").read_text())["split"]
    )
    assert (
        f"{wanted} of these {overlap.clips} clips were trained on"
        in (tmp_path / "report/index.html").read_text()
    )


def test_on_train_every_clip_is_found_and_no_rule_is_fitted_on_what_it_judges(
    root: Path, tmp_path: Path
) -> None:
    scored = measure(root, tmp_path / "report", data=root / "combined_all" / "train")
    assert scored.overlap.same_clip == Comparison(32, 32)
    assert scored.overlap.touched == 32
    assert set(scored.overlap.roles) == {"train", "selection"}
    figures = json.loads((tmp_path / "report" / report.METRICS_NAME).read_text())
    assert figures["baselines"] is None
    assert figures["baselines_note"] == "not computed: these are the clips they would be fitted on"


def test_clips_of_a_source_that_was_trained_on_are_found_by_its_name(root: Path, tmp_path: Path) -> None:
    """The table of training clips is edited to name sources of val; no content matches, so only the names tell."""
    model = tmp_path / "model"
    shutil.copytree(root / "model", model)
    made = trained_clips.read(model)
    assert made is not None
    judged = manifest.read(root / "combined_all").query("split == 'val'").clip_id.tolist()
    groups = manifest.read(root / "combined_all").set_index("clip_id").source_group[judged[:3]].unique()
    made.loc[: len(groups) - 1, "source_group"] = groups
    made.to_csv(model / trained_clips.CLIPS_NAME, index=False)
    overlap = measure(root, tmp_path / "report", models=model).overlap
    wanted = int(manifest.read(root / "combined_all").query("split == 'val'").source_group.isin(groups).sum())
    assert wanted >= 3
    assert overlap.same_source == Comparison(wanted, 8)
    assert (overlap.same_clip.found, overlap.near_copy.found, overlap.touched) == (0, 0, wanted)
    page = (tmp_path / "report" / report.PAGE_NAME).read_text()
    assert f"{wanted} of these 8 clips were trained on" in page


def test_what_an_earlier_version_did_not_note_is_not_checked(root: Path, tmp_path: Path) -> None:
    model = tmp_path / "old" / "model"
    shutil.copytree(root / "model", model)
    made = trained_clips.read(model)
    assert made is not None
    (model / "trained_on.csv").unlink()
    (model / "trained_on.txt").write_text("\n".join(made.clip_id))
    for name in ("best_model.safetensors", "final_model.safetensors"):
        (model / name).unlink()
    overlap = measure(root, tmp_path / "r1", models=model).overlap
    assert overlap.same_clip == Comparison(0, 8)
    for comparison in (overlap.same_source, overlap.near_copy):
        assert comparison.text().startswith("not checked: the model was made by an earlier version")
    (model / "trained_on.txt").unlink()
    overlap = measure(root, tmp_path / "r2", models=model).overlap
    assert {c.compared for c in (overlap.same_clip, overlap.same_source, overlap.near_copy)} == {0}
    written = json.loads((tmp_path / "r2" / report.METRICS_NAME).read_text())
    assert written["clips_trained_on"] is None
    assert "has no trained_on.csv" in written["seen_in_training"]["same_clip"]["not_checked"]


def test_the_same_content_under_both_labels_is_left_out_and_named(
    root: Path, new: Path, tmp_path: Path
) -> None:
    scored = measure(root, tmp_path / "report", data=new)
    assert scored.n == 11
    assert {Path(f["path"]).name for f in scored.failures} == {"0.avi", "copy.avi", "same.avi"}
    assert "both left out" in (tmp_path / "report" / "failures.csv").read_text()


def test_clips_that_were_trained_on_are_counted_by_content(root: Path, new: Path, tmp_path: Path) -> None:
    (new / "nonfight/cam1/same.avi").unlink()
    for seed in range(20):
        shutil.copy(root / "raw/mine/fight" / f"{seed}.avi", new / "fight" / f"renamed {seed}.avi")
    scored = measure(root, tmp_path / "report", data=new)
    assert scored.n == 32
    assert scored.trained_on == 16  # the other four are in val
    assert scored.overlap.touched == 16
    assert "clips were trained on" in (tmp_path / "report" / report.PAGE_NAME).read_text()


def test_rows_of_a_csv_file_are_cut_and_those_called_train_left_out(root: Path, tmp_path: Path) -> None:
    small_videos.write(tmp_path / "long.avi", 700, n_frames=120)  # 10 s
    small_videos.write(tmp_path / "peace.avi", 701)
    rows = ["long.avi,fight,cam1,1,3,", "long.avi,nonfight,cam1,6,8,val", "peace.avi,nonfight,cam2,,,"]
    rows += ["long.avi,fight,cam1,8,9,train", "gone.avi,fight,,,,", "long.avi,fight,,20,25,"]
    (tmp_path / "my clips.csv").write_text("\n".join(["path,label,source,start_s,end_s,split", *rows]))
    scored = measure(root, tmp_path / "report", data=tmp_path / "my clips.csv")
    assert scored.n == 3
    assert set(scored.predictions.dataset) == {"my_clips"}
    assert scored.predictions.groupby("source_group").size().to_dict() == {
        "my_clips:cam1": 2,
        "my_clips:cam2": 1,
    }
    assert sorted(f["path"].rpartition(":")[2] for f in scored.failures) == ["6", "7"]
    assert not (root / "windows").exists()  # windows/ is where step 2 puts the clips that it cuts


def test_what_one_list_gives_does_not_replace_what_another_of_its_name_gives(tmp_path: Path) -> None:
    """Two evaluations may run at once with sets and videos of the same name."""
    config = EvaluationConfig(data_root=tmp_path, workers=1)
    made: list[dict[Path, bytes]] = []
    for seed, folder in ((700, tmp_path / "a"), (701, tmp_path / "b")):
        small_videos.write(folder / "long.avi", seed, n_frames=120)
        (folder / "list.csv").write_text(
            "path,label,start_s,end_s\nlong.avi,fight,1,3\nlong.avi,nonfight,6,8\n"
        )
        sets, _ = own_data.sets(EvaluationConfig(data_root=tmp_path, own=(f"mine={folder / 'list.csv'}",)))
        clips = own_data.read(config, sets, 5.0)
        made.append({tmp_path / path: (tmp_path / path).read_bytes() for path in clips.rows.path})
    assert [len(files) for files in made] == [2, 2]
    assert {path: path.read_bytes() for path in made[0]} == made[0]


def test_models_of_other_windows_leave_each_other_what_was_cut_of_one_list(tmp_path: Path) -> None:
    """In a shared folder, one model's clips counted as left over for the other, which removed them in use."""
    small_videos.write(tmp_path / "long.avi", 700, n_frames=120)
    (tmp_path / "list.csv").write_text("path,label,start_s,end_s\nlong.avi,fight,1,9\n")
    config = EvaluationConfig(data_root=tmp_path, own=(f"mine={tmp_path / 'list.csv'}",), workers=1)
    made = [own_data.read(config, own_data.sets(config)[0], window_s).rows.path for window_s in (4.0, 2.0)]
    assert [len(paths) for paths in made] == [2, 4]
    assert all((tmp_path / path).is_file() for paths in made for path in paths)


def test_two_evaluations_of_one_list_cut_it_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a lock, clips that one run was writing counted as left over for the other, which removed them."""
    small_videos.write(tmp_path / "long.avi", 700, n_frames=120)
    (tmp_path / "list.csv").write_text("path,label,start_s,end_s\nlong.avi,fight,1,3\n")
    cut, alone = cutting.cut, []

    def watched(found: Inventory, config: CutConfig, place: Path, workers: int) -> CutResult:
        with pytest.raises(locks.LockTaken), locks.locked(place / own_data._LOCK_NAME, wait=False):
            pass
        alone.append(place)
        return cut(found, config, place, workers)

    monkeypatch.setattr(cutting, "cut", watched)
    config = EvaluationConfig(data_root=tmp_path, own=(f"mine={tmp_path / 'list.csv'}",), workers=1)
    assert len(own_data.read(config, own_data.sets(config)[0], 5.0).rows) == 1
    assert len(alone) == 1


def test_an_unreadable_clip_is_named_and_lowers_the_coverage(root: Path, new: Path, tmp_path: Path) -> None:
    (new / "nonfight/cam1/same.avi").write_bytes(b"no video")
    scored = measure(root, tmp_path / "report", data=new)
    assert scored.n == 12
    assert scored.result["coverage"]["nonfight"]["n"] == 7
    assert scored.result["coverage"]["nonfight"]["predicted"] == 6
    (failure,) = scored.failures
    assert failure["path"].endswith("same.avi")


def test_a_clip_that_decodes_in_part_is_measured_and_named(
    root: Path, new: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (new / "nonfight/cam1/same.avi").unlink()
    small_videos.write(new / "fight/cam0/half.avi", 900, n_frames=48)
    data = (new / "fight/cam0/half.avi").read_bytes()
    (new / "fight/cam0/half.avi").write_bytes(data[: len(data) * 2 // 3])
    assert measure(root, tmp_path / "report", data=new).n == 13
    (said,) = [m for m in caplog.messages if "measured on the part that can be decoded: " in m]
    assert "1 files, " in said
    assert "half.avi: only " in said


def test_a_model_that_gives_no_number_for_any_clip_is_told_why(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "predict", lambda _, inputs: np.full(len(next(iter(inputs.values()))), np.nan))
    with pytest.raises(UserError, match=r"none of the 8 clips could be judged.*\.avi: .*not finite"):
        measure(root, tmp_path / "report")
    assert not (tmp_path / "report" / report.METRICS_NAME).exists()


def test_without_a_data_root_features_stand_beside_the_report(root: Path, new: Path, tmp_path: Path) -> None:
    config = EvaluationConfig(
        models=root / "model",
        data=new,
        data_root=tmp_path / "nowhere",
        output=tmp_path / "r" / "mine",
        workers=1,
    )
    evaluate.run(config, "")
    caches = [path for path in (tmp_path / "r" / "features").iterdir() if path.is_dir()]
    assert len(caches) == 2
    assert not (tmp_path / "nowhere").exists()


def test_names_that_mean_nothing_end_with_the_command(root: Path, tmp_path: Path) -> None:
    small_videos.write(tmp_path / "x/violence/a.avi", 1)
    small_videos.write(tmp_path / "x/calm/a.avi", 2)
    with pytest.raises(UserError, match=r"nothing in .*/x can be used as x") as error:
        measure(root, tmp_path / "report", data=tmp_path / "x")
    line = str(error.value)
    assert f"python test_ensemble.py --models {root}/model" in line
    assert f"--own x={tmp_path}/x --labels fight=violence WHICH=calm" in line
    scored = measure(
        root, tmp_path / "report", data=tmp_path / "x", labels=("fight=violence", "nonfight=calm")
    )
    assert scored.n == 2


def test_a_folder_that_is_named_twice_says_which_set_has_its_clips(root: Path, tmp_path: Path) -> None:
    small_videos.write(tmp_path / "x/fight/a.avi", 1)
    small_videos.write(tmp_path / "x/nonfight/a.avi", 2)
    twice = tuple(f"{name}={tmp_path}/x" for name in ("one", "two"))
    with pytest.raises(UserError, match=r"a\.avi: is in the set one already") as error:
        measure(root, tmp_path / "report", elsewhere=twice)
    assert "no folder with videos" not in str(error.value)


_COLUMNS = ",".join(manifest.COLUMNS)


@pytest.mark.parametrize(
    "first",
    [
        _COLUMNS,
        "\ufeff" + _COLUMNS,
        f'"{_COLUMNS}"'.replace(",", '","'),
        f'\ufeff"{_COLUMNS}"'.replace(",", '";"'),
        "," + _COLUMNS,
        ",".join(reversed(manifest.COLUMNS)),
    ],
    ids=["as written", "with a mark", "quoted", "semicolons", "with the index of pandas", "in another order"],
)
def test_a_manifest_that_a_spreadsheet_has_saved_is_known_as_one(tmp_path: Path, first: str) -> None:
    """A look at the val of a manifest that is not recognised would not be noted in the ledger."""
    (tmp_path / "manifest.csv").write_text(first + "\n", encoding="utf-8")
    assert combined_folders.has_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text("clip_id,path,label\n", encoding="utf-8")  # a user's own table
    assert not combined_folders.has_manifest(tmp_path)


def test_which_data_is_ones_own(tmp_path: Path) -> None:
    combined, mine = tmp_path / "combined_all", tmp_path / "Hockey Fights"
    for folder in (combined / "val" / "fight", mine / "fight", tmp_path / "empty"):
        folder.mkdir(parents=True)
        if folder.name == "fight":
            (folder / "a.avi").touch()
    (mine / "manifest.csv").write_text("path,label\n")
    for data in (combined / "val", combined, tmp_path / "nowhere", tmp_path / "empty"):
        assert own_data.named(EvaluationConfig(data=data)) == ()
    assert own_data.named(EvaluationConfig(data=mine)) == (f"own_hockey_fights={mine}",)
    assert own_data.named(EvaluationConfig(data=mine / "manifest.csv")) == (f"manifest={mine}/manifest.csv",)
    assert own_data.named(EvaluationConfig(own=("a=b",))) == ("a=b",)
    (tmp_path / "link").symlink_to(combined / "val")
    assert own_data.named(EvaluationConfig(data=tmp_path / "link")) == ()
    moved = tmp_path / "moved"
    shutil.copytree(mine / "fight", moved / "val" / "fight")
    (moved / "manifest.csv").write_text(_COLUMNS + "\n")
    for data in (moved / "val", moved / "val" / "fight"):
        assert own_data.named(EvaluationConfig(data=data)) == ()
    for place in (
        combined / "val",
        combined / "val" / "fight",
        tmp_path / "link",
        moved,
        moved / "val" / "fight",
    ):
        value = (f"v={place}",)
        for flag, config in (
            ("own", EvaluationConfig(own=value)),
            ("elsewhere", EvaluationConfig(elsewhere=value)),
        ):
            with pytest.raises(UserError, match=rf"--{flag} v={place}: .*--data <root>/combined_all/val"):
                own_data.sets(config)
    with pytest.raises(UserError, match="one after the other"):
        own_data.named(EvaluationConfig(data=combined, own=("a=b",)))


@pytest.mark.parametrize("side", ["val", "train", ""])
def test_a_set_from_elsewhere_takes_no_clip_of_the_one_that_is_measured(tmp_path: Path, side: str) -> None:
    """A clip that both list is the first set's: sides in a list matter only for clips that are yet to be divided."""
    for path in ("mine/fight/a.avi", "mine/nonfight/b.avi", "c.avi", "d.avi"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    rows = ["mine/fight/a.avi,fight", "mine/nonfight/b.avi,nonfight", "c.avi,fight", "d.avi,nonfight"]
    (tmp_path / "all.csv").write_text("path,label,split\n" + "".join(f"{row},{side}\n" for row in rows))
    config = EvaluationConfig(data=tmp_path / "mine", elsewhere=(f"all={tmp_path / 'all.csv'}",))
    (mine,), (others,) = own_data.sets(config)
    assert (len(mine.clips), len(others.clips)) == (2, 2)


@pytest.fixture
def copies(root: Path, tmp_path: Path) -> Path:
    """Copies of four val clips under other names, one of them twice, and two clips that are in no manifest."""
    val = manifest.read(root / "combined_all").query("split == 'val'")
    folder = tmp_path / "mine"
    for i, (path, label) in enumerate(zip(val.path[:4], val.label[:4], strict=True)):
        (folder / label / f"cam{i}").mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "combined_all" / path, folder / label / f"cam{i}" / "copy.avi")
    shutil.copytree(folder / val.label.iloc[0] / "cam0", folder / val.label.iloc[0] / "again")
    for offset, label in enumerate(CLASSES):
        small_videos.write(folder / label / "new" / "a.avi", 1500 + offset)
    return folder


def _looks(root: Path) -> list[dict[str, Any]]:
    ledger = root / "combined_all" / val_ledger.FILE_NAME
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.is_file() else []


def test_one_clip_of_val_is_said_of_as_one(root: Path, tmp_path: Path) -> None:
    one = sorted((root / "combined_all" / "val" / "fight").iterdir())[0]
    (tmp_path / "x" / "fight").mkdir(parents=True)
    shutil.copy(one, tmp_path / "x" / "fight" / one.name)
    small_videos.write(tmp_path / "x/nonfight/new.avi", 4321)
    scored = measure(root, tmp_path / "report", data=tmp_path / "x")
    assert scored.val_ledger["text"].startswith("1 of these 2 clips is val of ")


@pytest.mark.parametrize("flag", ["data", "own", "elsewhere"])
def test_copies_of_val_are_a_look_at_it(root: Path, copies: Path, tmp_path: Path, flag: str) -> None:
    before, known = len(_looks(root)), len(val_ledger.read(root / "combined_all").same)
    value = copies if flag == "data" else (f"mine={copies}",)
    scored = measure(root, tmp_path / "report", **{flag: value})
    look = _looks(root)[-1]
    assert len(_looks(root)) - before == (2 if flag == "elsewhere" else 1)
    accuracy = scored.elsewhere["mine"].accuracy if flag == "elsewhere" else scored.accuracy
    assert (look["purpose"], look["val_clips"], look["val_clips_of"]) == ("evaluation", 4, 8)
    assert look["figures"]["accuracy"] == accuracy
    figures = json.loads((tmp_path / "report" / report.METRICS_NAME).read_text())
    record = figures["elsewhere"]["mine"]["val_ledger"] if flag == "elsewhere" else figures["val_ledger"]
    said = f"4 of these 6 clips are val of {root / 'combined_all' / 'manifest.csv'}, by content; "
    assert record["text"].startswith(said)
    assert record["looks_before"] == known, "what the same command has noted is no look before it"
    assert len(val_ledger.read(root / "combined_all").same) == known + 1
    page = (tmp_path / "report" / report.PAGE_NAME).read_text()
    assert "4 of these 6 clips are val of" in page
    if flag != "elsewhere":
        (box,) = [box for box in figures["checklist"] if box["name"] == "Val looked at once"]
        assert box["found"] == record["text"]
        (limit,) = [limit for limit in figures["limits"] if limit["name"] == "Looks at val"]
        assert limit["text"] == record["text"]


def test_clips_that_are_not_val_are_no_look_and_without_a_manifest_nothing_is_claimed(
    root: Path, new: Path, tmp_path: Path
) -> None:
    before = _looks(root)
    measure(root, tmp_path / "r1", data=new)
    assert _looks(root) == before
    figures = json.loads((tmp_path / "r1" / report.METRICS_NAME).read_text())
    assert figures["val_ledger"]["text"].startswith("none of these 11 clips is val of ")
    (tmp_path / "bare").mkdir()
    measure(root, tmp_path / "r2", data=new, data_root=tmp_path / "bare")
    figures = json.loads((tmp_path / "r2" / report.METRICS_NAME).read_text())
    record, (limit,) = (
        figures["val_ledger"],
        [limit for limit in figures["limits"] if limit["name"] == "Looks at val"],
    )
    assert (record["checked"], limit["state"]) == (False, "unknown")
    assert record["text"].startswith("not checked whether these clips are val of a manifest: there is no ")
    (box,) = [box for box in figures["checklist"] if box["name"] == "Val looked at once"]
    assert (box["state"], box["found"]) == ("missing", record["text"])
    assert "ot checked whether these clips are val" in (tmp_path / "r2" / report.PAGE_NAME).read_text()
