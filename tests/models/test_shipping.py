"""A shipped model: small, complete in one folder, equal to its final fit, and refused if it was changed."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from violence_detection.combine import manifest, split
from violence_detection.ensemble import ensemble_run, run_checks
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.pool import Pool
from violence_detection.errors import UserError
from violence_detection.evaluation import elsewhere, training_overlap
from violence_detection.features.config import ExtractConfig
from violence_detection.features.key import Inputs
from violence_detection.models import (
    adapted_head,
    adapted_model,
    averaging,
    calibration,
    model_card,
    model_files,
    run_records,
    shipped,
    shipping,
    trained_model,
)
from violence_detection.system import storage
from violence_detection.training import heads, saved_heads

MEMBERS = ("average", "kernel")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    made = synthetic.pool(tmp_path_factory.mktemp("features"))
    rng = np.random.default_rng(0)
    prints = [rng.bytes(192).hex() for _ in range(len(made.frame))]
    frame = made.frame.assign(split=split.TRAIN, fingerprint=prints)
    return Pool(frame, made.stores, made.variants, [], made.records, made.manifest_sha256, False)


@pytest.fixture(scope="module")
def place(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A final fit, and the folder of models by name, in which it is shipped as `tiny`."""
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("by_name")
    rows = [{"clip_id": c, "split": split.TRAIN} for c in pool.frame.clip_id]
    storage.write_csv(root / "combined_all" / manifest.FILE_NAME, ("clip_id", "split"), rows)
    config = EnsembleConfig(members=MEMBERS, cross_validate=2, final=True, ship="tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIOLENCE_MODELS", str(home))
        said = ensemble_run.EnsembleRun(
            config, ExtractConfig(data_root=root), synthetic.settings(), root / "models", False, pool,
            frozenset(pool.frame.dataset), tf.distribute.get_strategy(),
        ).run()  # fmt: skip
    assert said["shipped"] == str(home / "tiny")
    return root / "models" / "final", home


@pytest.fixture
def by_name(place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of models by name, which the test may damage."""
    home = Path(shutil.copytree(place[1], tmp_path / "by_name"))
    monkeypatch.setenv("VIOLENCE_MODELS", str(home))
    monkeypatch.chdir(tmp_path)
    return home


def _inputs(pool: Pool) -> Inputs:
    return pool.plain(pool.frame.clip_id.tolist()).plain()


def test_it_gives_what_it_was_made_of_in_half_the_bytes(
    place: tuple[Path, Path], by_name: Path, pool: Pool
) -> None:
    final = place[0]
    before, after = trained_model.load(final), trained_model.load(shipped.find(Path("tiny")))
    assert "tiny" in shipped.list_models()
    assert (after.features, [m.name for m in after.members]) == (before.features, list(MEMBERS))
    one, other = before.predict(_inputs(pool)), after.predict(_inputs(pool))
    changes = [np.abs(one[name] - other[name]).max() for name in MEMBERS]
    changes.append(np.abs(before.average(one) - after.average(other)).max())
    assert max(changes) < 1e-3
    assert calibration.read(by_name / "tiny").record() == calibration.read(final).record()
    weights = f"{heads.KERNEL}/best_model.safetensors"  # the other member has no large weights here
    assert (by_name / "tiny" / weights).stat().st_size < 0.5 * (final / weights).stat().st_size
    landmarks = {n: v for n, v in load_file(by_name / "tiny" / weights).items() if "vectors" in n}
    assert {v.dtype for n, v in landmarks.items() if not n.endswith(".step")} == {np.dtype(np.int8)}
    np.testing.assert_array_equal(one[heads.KERNEL], other[heads.KERNEL])
    kinds = {p.suffix for p in (by_name / "tiny").rglob("*") if p.is_file()}
    assert kinds == {".json", ".safetensors", ".csv", ".md", ""}, "nothing in it can run"


def test_it_knows_the_clips_it_was_trained_on(by_name: Path, pool: Pool) -> None:
    model = trained_model.load(by_name / "tiny")
    assert len(list((by_name / "tiny").rglob("trained_on.csv"))) == 1, "one table for all members"
    overlap = training_overlap.compare(model, pool.frame, "f" * 64)
    for comparison in (overlap.same_clip, overlap.same_source, overlap.near_copy):
        assert (comparison.found, comparison.why_not) == (len(pool.frame), "")
    renamed = pool.frame.assign(clip_id="other", source_group="raw:x")
    assert training_overlap.compare(model, renamed, "").near_copy.found == len(renamed), (
        "copies by fingerprint"
    )


def test_it_is_adapted_into_a_model_of_its_own_that_claims_nothing(
    by_name: Path, pool: Pool, tmp_path: Path
) -> None:
    inputs, source, to = _inputs(pool), by_name / "tiny", tmp_path / "adapted"
    before, kernel = trained_model.load(source), adapted_model.kernel_of(source)
    p = before.average(before.predict(inputs))
    # the made-up model is sure of few clips
    adapted = adapted_head.adapt(kernel.head, kernel.head.units(inputs), np.where(p > np.median(p), 0.9, 0.1))
    footage = [adapted_model.FootagePart("f" * 16, "f" * 16, "ab" * 192)]
    adapted_model.write(source, kernel, adapted.head, to, {"windows": len(p)}, footage)
    after = trained_model.load(to)
    one, other = before.predict(inputs), after.predict(inputs)
    np.testing.assert_array_equal(other["average"], one["average"])
    assert np.abs(other["kernel"] - one["kernel"]).max() > 0.01
    own = after.members[1].temperature
    raw = adapted.head.predict(inputs)
    expected = raw if own is None else averaging.scaled(raw, 1 / own)
    np.testing.assert_allclose(other["kernel"], expected, atol=1e-5)
    assert calibration.read(to).temperature == calibration.read(source).temperature
    assert not calibration.read(to).operating_points
    assert before.calibrated
    assert not after.calibrated, "nobody knows whether the temperature fits it"
    known, _ = training_overlap.known_clips(after)
    assert known.role.value_counts().to_dict() == {"train": len(pool.frame), "adapted": 1}
    assert not run_records.read(to).final_fit
    assert run_records.read(to).trained_on_all
    assert model_files.identity(to) != model_files.identity(source)
    assert storage.read_json(to / adapted_model.RECORD_NAME) == {"windows": len(p)}
    assert adapted_model.kernel_of(to).record["head"]["landmarks"] == len(adapted.head.kernel)


def test_what_has_no_kernel_head_is_not_adapted() -> None:
    with pytest.raises(UserError, match="has none"):
        adapted_model.kernel_of(shipped.find(Path("fast")))


def test_its_card_says_what_the_folds_gave_and_its_own_name(by_name: Path) -> None:
    card = (by_name / "tiny" / model_card.CARD_NAME).read_text()
    accuracy = run_records.read(by_name / "tiny").cross_validation["cv_accuracy"]
    assert f"same settings: {100 * accuracy:.1f} % of 96 clips" in card
    assert "\n# tiny\n" in card
    assert 'violence_detection.load("tiny")' in card
    assert "no other accuracy is claimed" in card
    steps = run_records.read(by_name / "tiny").final_fit["steps"]
    assert set(steps) == {"average"}, "the kernel head makes none"
    assert f"| optimiser steps | {steps['average']['steps']}, kernel: fitted at once |" in card


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _change_a_weight(path: Path) -> None:
    tensors = load_file(path)
    tensors["logits/kernel.1"][0] += 1
    save_file(tensors, path, metadata={"dtype_policy": "float32"})


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("average/best_model.safetensors", _change_a_weight),
        ("average/config.json", _cut),
        ("ensemble.json", _cut),
        ("trained_on.csv", Path.unlink),
        ("average/best_model.keras", Path.touch),
        ("SHA256SUMS", lambda path: path.write_text(path.read_text().partition("\n")[2])),
        ("SHA256SUMS", lambda path: path.write_text("")),
    ],
)
def test_one_that_is_not_as_it_was_shipped_is_refused(by_name: Path, name: str, spoil: object) -> None:
    assert callable(spoil)
    spoil(by_name / "tiny" / name)
    for use in (trained_model.load, calibration.read, model_files.identity):
        with pytest.raises(UserError, match=r"not as it was shipped: .*Install the package again"):
            use(shipped.find(Path("tiny")))


def test_an_evaluation_leaves_its_folder_as_it_is(by_name: Path, tmp_path: Path) -> None:
    before = (by_name / "tiny" / model_card.CARD_NAME).read_bytes()
    unchecked = {"checked": False, "compared": 0, "found": None, "not_checked": "x"}
    seen = {"touched": 0, "same_clip": unchecked, "same_source": unchecked, "near_copy": unchecked}
    figures = {"accuracy": 0.5, "ci95": [0.4, 0.6], "n": 4, "n_groups": 2, "roc_auc": None}
    metrics = {
        **figures, "by_dataset": {}, "threshold": 0.5, "recall": None, "precision": None, "split": "val", "data": "x",
        "created": "x", "command": "x", "generated_sample_clips": False, "val_ledger": {"text": "x"},
        "seen_in_training": seen, "coverage": {},
    }  # fmt: skip
    model_card.complete(by_name / "tiny", metrics, tmp_path / "card.md")
    assert "50.0 %" in (tmp_path / "card.md").read_text()
    assert (by_name / "tiny" / model_card.CARD_NAME).read_bytes() == before


def test_shipped_again_it_takes_the_place_of_the_earlier_one_byte_for_byte(
    place: tuple[Path, Path], by_name: Path, pool: Pool
) -> None:
    before = (by_name / "tiny" / "SHA256SUMS").read_text()
    shipping.ship(place[0], "tiny", _inputs(pool))
    assert (by_name / "tiny" / "SHA256SUMS").read_text() == before
    assert sorted(p.name for p in by_name.iterdir()) == ["tiny"]


def test_a_model_of_a_containers_image_which_cannot_be_renamed_is_replaced(
    place: tuple[Path, Path], by_name: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, rename = by_name / "tiny", Path.rename
    before = (tiny / "SHA256SUMS").read_text()

    def of_an_image(path: Path, target: Path) -> Path:
        if path == tiny:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(path))
        return rename(path, target)

    def killed(source: Path, to: Path) -> None:
        to.mkdir()
        raise KeyboardInterrupt(source)

    monkeypatch.setattr(Path, "rename", of_an_image)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            shipping.ship(place[0], "tiny", _inputs(pool))
    assert (tiny / "SHA256SUMS").read_text() == before
    shipping.ship(place[0], "tiny", _inputs(pool))
    assert (tiny / "SHA256SUMS").read_text() == before
    assert sorted(p.name for p in by_name.iterdir()) == ["tiny"]


def test_weights_that_half_precision_would_change_stay_whole(
    place: tuple[Path, Path], by_name: Path, pool: Pool, tmp_path: Path
) -> None:
    """The weights are too large for float16."""
    final = Path(shutil.copytree(place[0], tmp_path / "final"))
    weights = final / "average" / "best_model.safetensors"
    model = saved_heads.load(weights)
    kernel = next(v for v in model.weights if v.path == "logits/kernel")
    kernel.assign(kernel * 1e9)
    saved_heads.save_weights(model, weights)
    to = shipping.ship(final, "whole", _inputs(pool))
    assert {v.dtype for v in load_file(to / "average" / "best_model.safetensors").values()} == {
        np.dtype(np.float32)
    }
    one, other = (trained_model.load(m).predict(_inputs(pool)) for m in (final, to))
    np.testing.assert_array_equal(one["average"], other["average"])


@pytest.mark.parametrize("name", ["Tiny", "../tiny", "", ".making", "a b"])
def test_a_name_that_is_no_folders_is_refused(by_name: Path, name: str) -> None:
    with pytest.raises(UserError, match="--ship"):
        shipping.check(name)


@pytest.mark.parametrize("what", ["trained", "a file", "adapted", "link"])
def test_what_was_not_shipped_is_never_replaced(
    place: tuple[Path, Path], by_name: Path, pool: Pool, what: str
) -> None:
    """The folder of models by name may also contain models that were trained there."""
    final, mine = place[0], by_name / "mine"
    if what == "trained":
        final = Path(shutil.copytree(final.parent, mine)) / "final"
    elif what == "a file":
        mine.write_text("notes")
    elif what == "link":
        mine.symlink_to(by_name / "not there")
    else:
        shutil.copytree(by_name / "tiny", mine)
        storage.write_json(mine / adapted_model.RECORD_NAME, {})
        model_files.write_sums(mine)
    before = {p: p.is_symlink() or p.read_bytes() for p in by_name.rglob("*") if not p.is_dir()}
    with pytest.raises(UserError, match=r"mine already exists and was not made by --ship.*another name"):
        run_checks.check(EnsembleConfig(cross_validate=2, final=True, ship="mine"))
    with pytest.raises(UserError, match="mine already exists and was not made by --ship"):
        shipping.ship(final, "mine", _inputs(pool))
    assert {p: p.is_symlink() or p.read_bytes() for p in by_name.rglob("*") if not p.is_dir()} == before


def test_a_model_whose_successor_was_killed_or_refused_is_there_again(
    place: tuple[Path, Path], by_name: Path, pool: Pool
) -> None:
    tiny = by_name / "tiny"
    before = {p: p.read_bytes() for p in tiny.rglob("*") if p.is_file()}
    other = by_name / ".making" / "other"  # a model that another run is making at the same time
    other.mkdir(parents=True)
    tiny.rename(by_name / ".making" / ".tiny.earlier")
    (by_name / ".making" / "tiny").mkdir()
    nowhere = {name: values[:0] for name, values in _inputs(pool).items()}
    with pytest.raises(Exception):  # noqa: B017, PT011 - why it fails does not matter
        shipping.ship(place[0], "tiny", nowhere)
    assert {p: p.read_bytes() for p in tiny.rglob("*") if p.is_file()} == before
    assert other.is_dir()
    shipping.ship(place[0], "tiny", _inputs(pool))
    assert [p.name for p in (by_name / ".making").iterdir()] == ["other"]


def test_only_a_final_fit_is_shipped(place: tuple[Path, Path], by_name: Path, pool: Pool) -> None:
    with pytest.raises(UserError, match=r"not a final fit.*--final"):
        shipping.ship(place[0].parent / "fold_0", "fold", _inputs(pool))
    with pytest.raises(UserError, match="Add --final"):
        run_checks.check(EnsembleConfig(cross_validate=2, ship="tiny"))


def test_without_a_name_ones_own_model_comes_before_the_shipped_one(
    by_name: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_PACKAGED", tmp_path / "nothing came with the package")
    with pytest.raises(UserError, match=r"no --model is given.*known by name: .*tiny"):
        shipped.find(None)
    shutil.copytree(by_name / "tiny", by_name / "accurate")
    assert shipped.find(None) == by_name / "accurate"
    assert shipped.default()[1].startswith("model: accurate, the default")
    (tmp_path / "models_ensemble" / "preview").mkdir(parents=True)
    assert shipped.find(None) == by_name / "accurate", "what --preview drew is no model"
    (tmp_path / "models_ensemble" / "ensemble.json").touch()
    assert shipped.find(None) == Path("models_ensemble")
    assert "models_ensemble" in shipped.default()[1]


def test_what_the_package_ships_is_whole_and_small() -> None:
    models = sorted(p for p in shipped._PACKAGED.iterdir() if p.is_dir())
    assert [model.name for model in models] == ["accurate", "fast"]
    for model in models:
        model_files.check_sums(model)
        records = run_records.read(model)
        assert records.final_fit, "its accuracy is that of folds by source"
        left_out = elsewhere.left_out(model, trained_model.load(model))
        assert left_out is not None, "its accuracy on data sets that it has never seen comes with it"
        assert left_out["belongs"] is True, left_out["whose"]
        assert records.left_out["datasets"] == left_out["datasets"]
    sizes = [p.stat().st_size for model in models for p in model.rglob("*") if p.is_file()]
    assert sum(sizes) < 20e6


def test_without_any_model_the_script_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    program = (
        "import pathlib, sys; sys.argv = ['test_violence_model.py', 'clip.mp4']\n"
        f"sys.path[:0] = [{str(ROOT)!r}]\n"
        "from violence_detection.models import shipped\n"
        "shipped._PACKAGED = pathlib.Path('none')\n"
        "import test_violence_model\n"
        "from violence_detection import cli\n"
        "cli.run_main(test_violence_model.main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "no --model is given" in done.stderr
    assert "train_ensemble_models.py" in done.stderr
