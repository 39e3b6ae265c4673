"""Fit the kernel head: a support vector machine on how similar a clip is to train clips, solved in one go.

- The kernel is the mean over the inputs of Gaussian kernels between the clips' means over time, scaled to unit length
  (Cortes & Vapnik 1995, "Support-Vector Networks"). For a backbone whose features' lengths say how much they tell, its
  Gaussian kernel is multiplied by both lengths.
- With more points than landmarks this is the Nystroem approximation (Williams & Seeger 2001, "Using the Nystroem Method
  to Speed Up Kernel Machines").
- Every pair of data set and class has the same total weight, so that no data set's share of fights is learnt.
- The problem is convex: the seed decides only which clips are landmarks, if there are more clips than `--landmarks`.
- Landmarks are rounded to one byte per number (whole_numbers.py) before anything is fitted to them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from violence_detection.backbones import registry
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.system import storage
from violence_detection.training import heads, plain_views, run_folder, saved_heads, whole_numbers
from violence_detection.training.config import HeadConfig
from violence_detection.training.likeness import likeness, unit
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_board import Board
from violence_detection.training.training_data import Data, Samples

log = logging.getLogger(__name__)

_COLUMNS = ("epoch", "loss", "accuracy", "auc", "selection_loss", "selection_accuracy", "selection_auc")
#: At most this many similarities to landmarks are held in memory; fewer variants of each clip are used to stay below.
_MOST_SIMILARITIES = 200_000_000
#: Clips whose features are read at once.
_BATCH = 512
#: Added to the diagonal of the landmarks' kernel matrix, in which two landmarks may be the same picture.
_JITTER = 1e-6
#: Cache of scikit-learn's SVC.
_CACHE_MB = 500
#: With more points than this, their kernel matrix, which is the square of their number, is not computed. LinearSVC then
#: solves the problem, less exactly than SVC.
_MOST_POINTS = 12_000
#: LinearSVC's `intercept_scaling`, large enough for the offset to be hardly regularised, and `max_iter`.
_FREE_OFFSET, _MOST_ITERATIONS = 10.0, 10_000
#: The logit, before calibration, of a clip on the margin of the support vector machine, where its decision value is 1.
LOGIT_SCALE = 2.0


def fit(record: Mapping[str, Any], data: Data, folder: Path) -> Trained:
    """Fit the kernel head that `record` describes, and write the files of a finished run to `folder` (run_folder.py).

    Raises UserError if a feature is not finite.
    """
    started = time.monotonic()
    seed = int(record["train"]["seed"])
    keras.utils.set_random_seed(seed)
    model = heads.of_record(record)
    _solve(model, data.train, HeadConfig(**record["head"]), seed, folder)
    p = plain_views.predict(model, data.selection)
    row = {
        "epoch": 1,
        **_figures("", data.train.labels, plain_views.predict(model, data.train)),
        **_figures("selection_", data.selection.labels, p),
    }
    for name in (run_folder.BEST_NAME, run_folder.FINAL_NAME):
        saved_heads.save(model, folder / name)
    storage.write_csv(folder / run_folder.LOG_NAME, _COLUMNS, [row])
    with Board(folder / run_folder.BOARD_NAME, record) as board:
        board.pictures(data.selection.labels, p, 1, last=True)
        board.best(row.get("selection_accuracy"), row.get("selection_loss"), 1)
    trained = Trained(
        folder=folder,
        selection_accuracy=row.get("selection_accuracy"),
        best_epoch=1,
        epochs_run=1,
        samples_per_second=round(len(data.train) / (time.monotonic() - started), 1),
    )
    trained.write()
    log.info("%s: fitted to %d clips in %.1f s", folder, len(data.train), time.monotonic() - started)
    return trained


def clip_weights(train: Samples) -> np.ndarray:
    """The weight of each clip, (N,) float64 with mean 1: every pair of data set and class has the same total weight."""
    keys = train.rows.dataset.astype(str) + "/" + train.rows.label.astype(str)
    counts = keys.map(keys.value_counts()).to_numpy(float)
    return len(keys) / (counts * keys.nunique())


def _solve(model: keras.Model, train: Samples, config: HeadConfig, seed: int, folder: Path) -> None:
    """Set the model's landmarks, kernel widths, and weights of the last layer."""
    from scipy.linalg import solve_triangular

    variants = _variants(train, config.landmarks)
    points = {name: compared_points(train, name, variants) for name in train.inputs}
    for name, values in points.items():
        if bad := np.flatnonzero(~np.isfinite(values).all(axis=(0, 2))).tolist():
            raise UserError(
                f"{folder}: the features {name} of {train.rows.path.iloc[bad[0]]} are nan or infinite. Remove their "
                "entry from the feature cache, and the same command extracts them again"
            )
    chosen = _landmarks(len(train), config.landmarks, seed)
    similar: Any = 0.0
    among: Any = 0.0
    for name, values in points.items():
        layer = model.get_layer(f"{name}.similarity")
        counts = layer.length_counts
        vectors = whole_numbers.rounded(values[0, chosen])
        gamma = sharpness(values[0], config.kernel_width, counts)
        stored = np.zeros((config.landmarks, vectors.shape[1]), np.float32)
        stored[: len(vectors)] = vectors
        layer.set_weights([stored, np.array([gamma], np.float32)])
        every = values.reshape(-1, vectors.shape[1])
        similar = similar + likeness(every, vectors, gamma, counts) / len(points)
        among = among + likeness(vectors, vectors, gamma, counts) / len(points)
    root = root_of(among)
    mapped = solve_triangular(root, np.asarray(similar, np.float64).T, lower=True, overwrite_b=True).T
    weights = np.tile(clip_weights(train) / len(variants), len(variants))
    direction, offset = separate(mapped, np.tile(train.labels, len(variants)), weights, config.kernel_c)
    shares = np.zeros((config.landmarks, 1), np.float32)
    shares[: len(chosen), 0] = LOGIT_SCALE * solve_triangular(root.T, direction, lower=False)
    model.get_layer("logits").set_weights([shares, np.array([LOGIT_SCALE * offset], np.float32)])


def root_of(among: np.ndarray) -> np.ndarray:
    """The Cholesky factor, lower triangular (M, M) float64, of the landmarks' kernel matrix `among`, (M, M).

    _JITTER is added to the diagonal. If dozens of landmarks are nearly the same, the matrix, rounded to float32, may
    still have no such factor; ten times as much is then added, until it has one. Raises LinAlgError if that would take
    1 or more, which no kernel matrix needs.
    """
    from scipy.linalg import LinAlgError, cholesky

    jitter = _JITTER
    while True:
        try:
            return cholesky(np.asarray(among, np.float64) + jitter * np.eye(len(among)), lower=True)
        except LinAlgError:
            jitter *= 10
            if jitter >= 1:
                raise


def separate(
    points: np.ndarray, labels: np.ndarray, weights: np.ndarray, c: float
) -> tuple[np.ndarray, float]:
    """Fit a linear support vector machine to points (N, D); return its direction (D,) and offset."""
    from sklearn.svm import SVC, LinearSVC

    if len(points) > _MOST_POINTS:
        linear = LinearSVC(
            C=c, loss="hinge", intercept_scaling=_FREE_OFFSET, max_iter=_MOST_ITERATIONS, random_state=0
        )
        linear.fit(points, labels, sample_weight=weights)
        return linear.coef_[0], float(linear.intercept_[0])
    solver = SVC(C=c, kernel="precomputed", cache_size=_CACHE_MB)
    solver.fit(points @ points.T, labels, sample_weight=weights)
    direction = solver.dual_coef_[0] @ points[solver.support_]
    return direction, float(solver.intercept_[0])


def _variants(train: Samples, landmarks: int) -> list[int]:
    """The variants of each clip that the head is fitted to: all, or the first ones that the limits allow."""
    there = next(iter(train.inputs.values())).shape[1]
    fit_in = max(1, _MOST_SIMILARITIES // (len(train) * min(landmarks, len(train))))
    fit_in = max(1, min(fit_in, _MOST_POINTS // len(train)))
    if fit_in < there:
        log.info(
            "of the %d variants of each clip, only %d can be used: more would take too much memory",
            there,
            fit_in,
        )
    return list(range(min(there, fit_in)))


def compared_points(train: Samples, name: str, variants: list[int]) -> np.ndarray:
    """The clips' means over time, (V, N, C) float32: at unit length, unless the backbone's features keep their own.

    The values are rounded to float16.
    """
    values = []
    for variant in variants:
        batches = [b[name].astype(np.float32) for b in train.view_batches(variant, _BATCH)]
        means = np.concatenate([batch.mean(axis=1) for batch in batches])
        values.append(means if registry.length_counts(key.backbone_of(name)) else unit(means))
    # rounded to float16, so that a model stored in half precision is exactly the model that was fitted
    return np.stack(values).astype(np.float16).astype(np.float32)


def _landmarks(count: int, most: int, seed: int) -> np.ndarray:
    """The indices of the clips that are landmarks, ascending: all, or `most` of them drawn at random."""
    if count <= most:
        return np.arange(count)
    rng = np.random.default_rng(storage.stable_seed(seed, "landmarks"))
    return np.sort(rng.choice(count, most, replace=False))


def sharpness(points: np.ndarray, width: float, length_counts: bool = False) -> float:
    """The kernel's gamma for points (N, C): `width` over the variance of the points, summed over the channels.

    `length_counts`: it is the variance of their directions.
    """
    compared = unit(points) if length_counts else points
    return width / max(float(compared.var(axis=0).sum()), 1e-12)


def _figures(prefix: str, labels: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Loss, accuracy and AUC; empty without clips."""
    from sklearn.metrics import log_loss, roc_auc_score

    if not len(labels):
        return {}
    return {
        f"{prefix}loss": float(log_loss(labels, p, labels=[0, 1])),
        f"{prefix}accuracy": float(np.mean((p >= 0.5) == (labels == 1))),
        f"{prefix}auc": float(roc_auc_score(labels, p)),
    }
