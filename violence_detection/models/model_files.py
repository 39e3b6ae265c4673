"""The files of a trained model, checked but not loaded, and the identity by which models are told apart."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from violence_detection.errors import UserError
from violence_detection.models import averaging
from violence_detection.models.averaging import EarlyExit
from violence_detection.system import storage
from violence_detection.system.figures import is_share
from violence_detection.training import run_folder

#: File in the folder of a shipped model with the SHA-256 of each of its files, in the format of `sha256sum -c`.
SUMS_NAME = "SHA256SUMS"
_MOST_TEMPERATURE = 1e5
#: At most this many characters of a stored value are quoted in a message.
_MOST_SHOWN = 200


def is_shipped(path: Path) -> bool:
    """Whether the folder is a shipped model, which is used only if its files are as they were shipped."""
    return (path / SUMS_NAME).is_file()


def listed(path: Path) -> list[tuple[str, Path, float]]:
    """Name, file and weight of each member of a model file, a model folder or an ensemble folder.

    Raises UserError, naming the remedy, if there is no model, if it is incomplete or has not finished training, or if a
    shipped model has changed.
    """
    if is_shipped(path):
        check_sums(path)
    if (path / run_folder.ENSEMBLE_NAME).is_file():
        files = _members(path)
    elif path.is_dir():
        file = run_folder.stored(path / run_folder.BEST_NAME)
        files = [(path.name, file, 1.0)]
        begun = file.is_file() or (path / run_folder.CONFIG_NAME).is_file()
        if begun and not (path / run_folder.RESULT_NAME).is_file():
            raise UserError(
                f"{path} has not finished training. Run the same command again to continue it"
                + (f". To use the model as it is, give {file}" if file.is_file() else "")
            )
    else:
        files = [(path.stem, path, 1.0)]
    for name, file, _ in files:
        if (path / run_folder.ENSEMBLE_NAME).is_file() and not file.exists():
            raise UserError(
                f"{path / run_folder.ENSEMBLE_NAME} lists the member {name}, but {file} is missing. Copy the whole "
                "folder again from where it was trained, or run the train_ensemble_models.py command that made it "
                "again: it trains what is missing"
            )
        _check_there(file, path)
    return files


def temperatures(path: Path) -> dict[str, float] | None:
    """Each member's own temperature by name, if the members' logits are averaged; None if no member has one.

    Raises UserError if only some members have one, or one is not a number from 1e-5 to 1e5.
    """
    file = path / run_folder.ENSEMBLE_NAME
    if not file.is_file():
        return None
    found = {m["name"]: m.get(averaging.TEMPERATURE_KEY) for m in run_folder.read_object(file)["members"]}
    if all(value is None for value in found.values()):
        return None
    for name, value in found.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 1 / _MOST_TEMPERATURE <= value <= _MOST_TEMPERATURE:
            shown = f"{name!r}, {value!r}"[:_MOST_SHOWN]
            raise run_folder.damaged(
                file, f"either no member has a temperature or each has a number above 0, found {shown}"
            )
    return {name: float(value) for name, value in found.items()}


def early_exit(path: Path) -> EarlyExit | None:
    """The model's early exit; None if it has none. Raises UserError if it is malformed or names no member."""
    file = path / run_folder.ENSEMBLE_NAME
    stored = run_folder.read_object(file).get(averaging.EARLY_EXIT_KEY) if file.is_file() else None
    if stored is None:
        return None
    try:
        found = EarlyExit(**stored)
    except (TypeError, ValueError) as e:
        raise run_folder.damaged(file, f"{averaging.EARLY_EXIT_KEY} is not valid: {e}") from e
    names = [name for name, *_ in _members(path)]
    if found.member not in names:
        raise run_folder.damaged(
            file,
            f"{averaging.EARLY_EXIT_KEY} names {found.member!r}, which is not one of its members, {', '.join(names)}",
        )
    return found


def closer_look(path: Path) -> bool:
    """Whether the model takes a closer look. Raises UserError if the stored value is neither true nor false."""
    file = path / run_folder.ENSEMBLE_NAME
    stored = run_folder.read_object(file).get(averaging.CLOSER_LOOK_KEY, False) if file.is_file() else False
    if not isinstance(stored, bool):
        raise run_folder.damaged(file, f"{averaging.CLOSER_LOOK_KEY} must be true or false")
    return stored


def _members(folder: Path) -> list[tuple[str, Path, float]]:
    """Name, file and weight of each member in ensemble.json. Raises UserError if any of them is missing or invalid."""
    path = folder / run_folder.ENSEMBLE_NAME
    members = run_folder.read_object(path).get("members")
    if not isinstance(members, list) or not all(isinstance(m, dict) for m in members) or not members:
        raise run_folder.damaged(path, "it lists no members")
    files = []
    for member in members:
        name, weight = member.get("name"), member.get("weight")
        if not isinstance(name, str) or not is_share(weight):
            found = f"{name!r}, {weight!r}"[:_MOST_SHOWN]
            raise run_folder.damaged(
                path, f"each member needs a name and a weight from 0 to 1, found {found}"
            )
        files.append((name, _inside(path, member.get("model")), float(weight)))
    if len({name for name, _, _ in files}) != len(files) or sum(weight for *_, weight in files) <= 0:
        raise run_folder.damaged(path, "names must differ, and some weight must be above 0")
    return files


def _inside(listed_in: Path, named: Any) -> Path:
    """The file `named` in ensemble.json. Raises UserError unless it names a model file below the ensemble's folder."""
    folder = listed_in.parent
    if isinstance(named, str) and named and "\0" not in named:
        file = run_folder.stored(folder / named)
        if (
            not PurePath(named).is_absolute()
            and ".." not in PurePath(named).parts
            and file.suffix in (run_folder.WEIGHTS_SUFFIX, run_folder.ARCHIVE_SUFFIX)
            and file.resolve().is_relative_to(folder.resolve())
        ):
            return file
    raise UserError(
        f"{listed_in} names the model {named!r}, which is not a model file below {folder}. Copy the members into that "
        "folder. If an earlier version made this ensemble of folds or of tuned members, run the same "
        "train_ensemble_models.py command again: it writes the file again without training again"
    )


def _check_there(file: Path, asked: Path) -> None:
    """Raise UserError, naming what is there instead, unless `file` is a model file. `asked`: what was to be loaded."""
    how = (
        "Train one with runpod_train_ultimate.py or train_ensemble_models.py and give its folder, or give a .keras or "
        ".safetensors file that has its config.json beside it"
    )
    known = (run_folder.WEIGHTS_SUFFIX, run_folder.ARCHIVE_SUFFIX)
    if file.is_file() and file.suffix in known:
        return
    if file.is_file():
        raise UserError(
            f"{file} is not supported as a model: only .keras and .safetensors files are loaded, because others may "
            f"contain code that runs when they are loaded. {how}"
        )
    kinds = (".h5", ".hdf5", ".pb", *known)
    others = sorted(p for p in asked.iterdir() if p.suffix in kinds) if asked.is_dir() else []
    if others:
        there = ", ".join(p.name for p in others[:5])
        raise UserError(f"no model at {file}. Other files there are not used in its place: {there}. {how}")
    names = (run_folder.ENSEMBLE_NAME, run_folder.CONFIG_NAME)
    if inside := sorted({p.parent for name in names for p in asked.glob(f"*/{name}")}):
        raise UserError(
            f"no model in {asked}, but in folders below it: {', '.join(p.name for p in inside[:5])}. If it was to "
            "become an ensemble, its training has not finished: run the same train_ensemble_models.py command again to "
            f"continue it. Otherwise give one of those folders, such as {inside[0]}"
        )
    raise UserError(f"no model at {file}. {how}")


def record_path(model_file: Path) -> Path:
    """The record (config.json) beside a model file. Raises UserError if it is missing."""
    path = model_file.parent / run_folder.CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{model_file} has no {path.name} beside it, which says how its input is prepared. "
                        "Copy that file from where the model was trained")  # fmt: skip
    return path


def trained_on_samples(path: Path) -> bool:
    """Whether any member was trained on generated sample clips. Raises UserError if a file or record is missing."""
    records = [run_folder.read_object(record_path(file)) for _, file, _ in listed(path)]
    return any(record.get("generated_samples") for record in records)


def identity(path: Path) -> str:
    """Hash of everything that a model's P(violent) depends on: 32 hex digits.

    That is its members' files, records and weights in the average, temperatures, early exit and closer look; the
    records name the weights of the backbones. The model's path and its members' names do not matter. Raises UserError
    if the model is missing, incomplete or damaged.
    """
    parts: list[Any] = [
        [storage.sha256_file(file), storage.sha256_file(record_path(file)), weight]
        for _, file, weight in listed(path)
    ]
    ensemble = path / run_folder.ENSEMBLE_NAME
    if ensemble.is_file():
        calibration = run_folder.read_object(ensemble).get(run_folder.CALIBRATION_KEY)
        if isinstance(calibration, dict) and calibration.get("temperature") is not None:
            parts.append(calibration["temperature"])
        without = calibration.get("without_exit") if isinstance(calibration, dict) else None
        if isinstance(without, dict):  # decides P(violent) where the early exit is not taken
            parts.append(["without_exit", without.get("temperature")])
    if own := temperatures(path):
        parts.append(list(own.values()))
    if first := early_exit(path):
        place = [name for name, *_ in listed(path)].index(first.member)
        parts.append([averaging.EARLY_EXIT_KEY, place, first.below])
    if closer_look(path):
        parts.append(averaging.CLOSER_LOOK_KEY)
    return storage.stable_hash(parts, digits=32)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, the SHA-256 of every file in the folder of a model that is to be shipped."""
    lines = [f"{storage.sha256_file(folder / name)}  {name}\n" for name in _files_in(folder)]
    storage.write_text(folder / SUMS_NAME, "".join(lines))


def check_sums(folder: Path) -> None:
    """Raise UserError unless the folder has exactly the files that SHA256SUMS lists, with the hashes listed there."""
    sums: dict[str, str] = {}
    for line in filter(None, storage.lines(storage.read_text(folder / SUMS_NAME))):
        sha256, _, name = line.partition("  ")
        sums[name] = sha256
    there = _files_in(folder)
    changed = sorted(set(sums) ^ set(there)) or [
        n for n in there if storage.sha256_file(folder / n) != sums[n]
    ]
    if changed:
        raise UserError(
            f"the shipped model {folder} is not as it was shipped: {changed[0]} does not match {SUMS_NAME}. Install "
            "the package again (pip install --force-reinstall --no-deps), or copy the folder again from where it was "
            "made"
        )


def _files_in(folder: Path) -> list[str]:
    """The files of a shipped model, relative to its folder, sorted; without SHA256SUMS and hidden files."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sorted(name for p in files if (name := p.relative_to(folder).as_posix()) != SUMS_NAME)
