"""Train the head `i3d_tuned` on Keras' JAX backend, for a GPU that TensorFlow cannot use.

    python benchmarks/tune_on_jax.py pack --data-root DATA --models MODELS --member kernel --output PICTURES
    KERAS_BACKEND=jax python benchmarks/tune_on_jax.py fit --pictures PICTURES --weights FILE --output OUT [FIT ...]
    python benchmarks/tune_on_jax.py give --fits OUT --weights FILE --models MODELS --share 0.75

Network, augmentation, optimiser, mixing of clips, learning rate schedule and averaging of weights are those of the
package; only the training loop is here. MODELS is a folder that train_ensemble_models.py made with a quicker member
(--member). Its folds, trainings without a data set, and final fit are the runs; each is repeated here with i3d_tuned on
the same train clips.

pack    writes to PICTURES a small video of each clip (H.264, 176 x 176 pixels, at most 5.12 s from the middle) and of
        each video below --quiet (whole, 12.5 frames per second), and pictures.json.
fit     trains a network per run and writes OUT/<run>.npz: the change from the published weights, rounded to steps of
        1/LEVELS of the largest change of each output channel; and the logits, with several shares of the change, of the
        clips whose sources the run did not see and of windows of the quiet videos. Needs the packages jax and keras,
        but not TensorFlow, PyAV or FFmpeg. A run whose file exists is not trained again.
give    writes given_weights.npz to the folder of the member i3d_tuned of each run in MODELS, with the given share of
        the change. train_ensemble_models.py uses these weights instead of training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

#: Width and height of the pictures that the network gets.
SIDE = 176
#: Frames that the network gets of a clip.
FRAMES = 32
#: Seconds that these frames are spread over.
SPAN_S = 2.56
#: Seconds that are packed of a clip, from its middle.
LONGEST_S = 5.12
#: Frames that are packed of a clip, at most.
MOST_FRAMES = 80
#: Shares of the change from the published weights with which held-out clips and quiet windows are judged.
SHARES = (0.5, 0.75, 1.0)
#: Batches that are prepared while the GPU computes.
_BATCHES_AHEAD = 12


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    p = modes.add_parser("pack")
    p.add_argument("--data-root", type=Path, required=True, help="folder with combined_all")
    p.add_argument("--models", type=Path, required=True, help="folder with the runs of a trained ensemble")
    p.add_argument("--member", default="kernel", help="member whose train clips are used (default: kernel)")
    p.add_argument("--quiet", type=Path, help="folder of videos in which nobody fights")
    p.add_argument("--output", type=Path, required=True)
    p = modes.add_parser("fit")
    p.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        required=True,
        help="folders that `pack` wrote; videos may be in any",
    )
    p.add_argument("--weights", type=Path, required=True, help="the published weights")
    p.add_argument("--output", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument(
        "--levels", type=int, default=15, help="steps from 0 to a channel's largest change (default: 15)"
    )
    p.add_argument(
        "--window",
        choices=("middle", "any"),
        default="any",
        help="place of the 2.56 s of a train clip (default: any)",
    )
    p.add_argument("fits", nargs="*", help="names of the runs to fit (default: all)")
    p = modes.add_parser("give")
    p.add_argument("--fits", type=Path, required=True, help="folder that `fit` wrote")
    p.add_argument("--weights", type=Path, required=True, help="the published weights")
    p.add_argument("--models", type=Path, required=True)
    p.add_argument("--share", type=float, default=0.75, help="share of the change (default: 0.75)")
    args = parser.parse_args()
    {"pack": pack, "fit": fit_all, "give": give}[args.mode](args)
    return 0


def pack(args: argparse.Namespace) -> None:
    """Write a small video of each clip and quiet video, and pictures.json with the clips of each run."""
    import pandas as pd

    from violence_detection.combine import manifest
    from violence_detection.system import storage

    combined = args.data_root / "combined_all"
    rows = manifest.read(combined)
    runs = {}
    for listed in sorted(args.models.glob(f"**/{args.member}/trained_on.csv")):
        seen = pd.read_csv(listed, encoding_errors=storage.NAME_ERRORS)
        trained = seen[seen.role == "train"]
        unseen = rows[~rows.source_group.isin(seen.source_group)]
        runs[listed.parent.parent.relative_to(args.models).as_posix()] = {
            "train": list(trained.clip_id), "held_out": list(unseen.clip_id),
        }  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    jobs = [
        (
            combined / r.path,
            {"id": r.clip_id, "label": int(str(r.label) == "fight"), "dataset": r.dataset, "kind": "clip"},
        )
        for r in rows.itertuples()
    ]
    quiet = (
        sorted(p for p in args.quiet.rglob("*") if p.suffix in (".mp4", ".avi", ".mkv")) if args.quiet else []
    )
    jobs += [(p, {"id": p.stem, "label": 0, "dataset": "quiet", "kind": "quiet"}) for p in quiet]
    clips = [_packed_video(path, args.output / f"{i:05d}.mp4", row) for i, (path, row) in enumerate(jobs)]
    (args.output / "pictures.json").write_text(json.dumps({"clips": clips, "runs": runs}))


def _packed_video(path: Path, target: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Write a small video and return its row.

    It has the frames of up to LONGEST_S from the middle of a clip, at their own rate or, if that gives more than
    MOST_FRAMES, evenly spaced; of quiet footage it has 12.5 frames per second.
    """
    import av

    from violence_detection.video.pictures import resize

    frames, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(resize(frame.to_ndarray(format="rgb24"), SIDE))
            times.append(float(frame.time or 0))
    at = np.array(times) - times[0]
    gap = float(np.median(np.diff(at))) if len(at) > 1 else 0.04
    length = at[-1] + gap
    span = min(length, LONGEST_S) if row["kind"] == "clip" else length
    count = min(round(span / gap), MOST_FRAMES) if row["kind"] == "clip" else round(length * 12.5)
    wanted = (length - span) / 2 + (np.arange(count) + 0.5) * span / count - gap / 2
    chosen = np.clip(np.searchsorted(at, wanted + 1e-6, side="right") - 1, 0, len(frames) - 1)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "25", "g": "100"}
        for i in chosen:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[i], format="rgb24")))
        container.mux(stream.encode())
    return {**row, "file": target.name, "span": span}


def give(args: argparse.Namespace) -> None:
    """Write the weights of each fit to the folder of the member i3d_tuned of its run."""
    from violence_detection.backbones import numpy_pickle
    from violence_detection.backbones.networks import i3d

    published = i3d.folded(i3d.trunk(), numpy_pickle.read_tree(args.weights))
    for path in sorted(args.fits.glob("*.npz")):
        fit = np.load(path)
        folder = args.models / path.stem.replace("+", "/") / "i3d_tuned"
        folder.mkdir(parents=True, exist_ok=True)
        changes = _unpacked(fit, [p.shape for p in published])
        arrays = [p + args.share * c for p, c in zip(published, changes, strict=True)]
        np.savez(folder / "given_weights.npz", *arrays, fit["kernel"], fit["bias"])
        print(folder)


class Pictures:
    """The packed clips: `data` (N, 80, S, S, 3) uint8; per clip, its frames `count` (N,) and seconds `span_s` (N,)."""

    def __init__(self, folders: list[Path]):
        listed = [f / "pictures.json" for f in folders if (f / "pictures.json").is_file()]
        record = json.loads(listed[0].read_text())
        self.runs: dict[str, dict[str, list[str]]] = record["runs"]
        rows = record["clips"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            videos = list(pool.map(lambda r: _frames([f / r["file"] for f in folders]), rows))
        self.quiet = [(r, v) for r, v in zip(rows, videos, strict=True) if r["kind"] == "quiet"]
        kept = [(r, v) for r, v in zip(rows, videos, strict=True) if r["kind"] == "clip"]
        self.ids = np.array([r["id"] for r, _ in kept])
        self.labels = np.array([r["label"] for r, _ in kept])
        self.datasets = np.array([r["dataset"] for r, _ in kept])
        self.span_s = np.array([r["span"] for r, _ in kept])
        self.count = np.array([len(v) for _, v in kept])
        self.data = np.zeros((len(kept), MOST_FRAMES, SIDE, SIDE, 3), np.uint8)
        for i, (_, video) in enumerate(kept):
            self.data[i, : len(video)] = video

    def moments(self, i: Any, start: float) -> np.ndarray:
        """The numbers (32,) of the frames of 2.56 s of clip `i`; `start`: 0 for its first 2.56 s, 1 for its last."""
        span = min(self.span_s[i], SPAN_S)
        rate = self.count[i] / self.span_s[i]
        at = (self.span_s[i] - span) * start + (np.arange(FRAMES) + 0.5) * span / FRAMES
        return np.clip((at * rate).astype(np.int32), 0, self.count[i] - 1)

    def quiet_windows(self) -> tuple[list[tuple[str, float]], np.ndarray]:
        """A window every 2.5 s of each quiet video: (its id, start in s) of each, and frames (N, 32, S, S, 3)."""
        where, windows = [], []
        for row, video in self.quiet:
            rate, start = len(video) / row["span"], 0.0
            while start + SPAN_S <= row["span"] + 0.2:
                at = (start + (np.arange(FRAMES) + 0.5) * SPAN_S / FRAMES) * rate
                windows.append(video[np.clip(at.astype(int), 0, len(video) - 1)])
                where.append((row["id"], start))
                start += 2.5
        return where, np.array(windows)


def _frames(paths: list[Path]) -> np.ndarray:
    video = cv2.VideoCapture(str(next(p for p in paths if p.is_file())))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    return np.stack(frames)


def fit_all(args: argparse.Namespace) -> None:
    """Fit the runs one after another; those whose file exists are left out."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    cv2.setNumThreads(1)
    pictures = Pictures(args.pictures)
    fitter = Fitter(pictures, args)
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.fits or pictures.runs:
        path = args.output / f"{name.replace('/', '+')}.npz"
        if not path.is_file():
            np.savez_compressed(path, **fitter.fit(name))


class Fitter:
    """The network, compiled once for any number of fits."""

    def __init__(self, pictures: Pictures, args: argparse.Namespace):
        import jax
        import keras
        from keras import ops

        from violence_detection.training import fine_tuning, heads
        from violence_detection.training.config import HeadConfig, TrainConfig

        self.pictures, self.args = pictures, args
        head = HeadConfig(tuned_steps=args.steps, tuned_batch_size=args.batch_size)
        train = fine_tuning.train_config(head, TrainConfig())
        plan = fine_tuning.plan(head)
        keras.config.set_dtype_policy("mixed_bfloat16" if jax.default_backend() == "gpu" else "float32")
        keras.utils.set_random_seed(0)
        name = "i3d_pictures.rgb"
        self.model = model = heads.build("i3d_tuned", {name: (FRAMES, SIDE * SIDE * 3)}, head)
        fine_tuning.start(model, args.weights)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0 if plan.warmup else train.learning_rate, decay_steps=max(1, plan.horizon - plan.warmup), alpha=0.01,
            warmup_target=train.learning_rate if plan.warmup else None, warmup_steps=plan.warmup,
        )  # fmt: skip
        self.optimizer = optimizer = fine_tuning.optimizer(model, schedule, train.weight_decay)
        optimizer.build(model.trainable_variables)
        self.start = [[np.asarray(v) for v in part] for part in
                      (model.trainable_variables, model.non_trainable_variables, optimizer.variables)]  # fmt: skip
        self.averages = [i for i, v in enumerate(optimizer.variables) if "_average" in v.path]
        seed = model.get_layer("augmentation").seed_generator
        loss = keras.losses.BinaryCrossentropy(label_smoothing=train.label_smoothing)
        self.data = jax.device_put(pictures.data)

        def looked_at(data: Any, rows: Any, moments: Any) -> Any:
            chosen = jax.vmap(lambda r, m: data[r][m])(rows, moments)
            return ops.reshape(chosen, (len(rows), FRAMES, SIDE * SIDE * 3))

        def step(tv: Any, ntv: Any, ov: Any, data: Any, rows: Any, moments: Any, y: Any) -> Any:
            mapping = list(zip(model.non_trainable_variables, ntv, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                x, y = fine_tuning.mixed({name: looked_at(data, rows, moments)}, y, seed)
            ntv = [scope.get_current_value(v) for v in model.non_trainable_variables]

            def measured(tv: Any) -> Any:
                p, after = model.stateless_call(tv, ntv, x, training=True)
                return loss(y, p), after

            (value, ntv), gradients = jax.value_and_grad(measured, has_aux=True)(tv)
            tv, ov = optimizer.stateless_apply(ov, gradients, tv)
            return tv, ntv, ov, value

        def judged(tv: Any, data: Any, rows: Any, moments: Any) -> Any:
            p, _ = model.stateless_call(
                tv, self.start[1], {name: looked_at(data, rows, moments)}, training=False
            )
            p = ops.clip(p[:, 0], 1e-7, 1 - 1e-7)
            return ops.log(p / (1 - p))

        self.step = jax.jit(step, donate_argnums=(0, 1, 2))
        self.judged = jax.jit(judged)
        self.quiet_at, self.quiet = pictures.quiet_windows()

    def fit(self, name: str) -> dict[str, Any]:
        """Train one run; return losses, logits of clips of sources that it did not see, and the change of weights."""
        import jax.numpy as jnp

        pictures, args, number = self.pictures, self.args, self.args.seed
        run = pictures.runs[name]
        train = np.flatnonzero(np.isin(pictures.ids, run["train"]))
        held_out = np.flatnonzero(np.isin(pictures.ids, run["held_out"]))
        tv, ntv, ov = ([jnp.asarray(v) for v in part] for part in self.start)
        # they are the seeds of all that is random in training
        ntv = [v + jnp.asarray(number * 1000 + 1, v.dtype) for v in ntv]
        order = self._drawn(train, number)
        rng = np.random.default_rng([number, 1])
        starts = rng.random(order.shape) if args.window == "any" else np.full(order.shape, 0.5)

        def batch(i: int) -> tuple[np.ndarray, ...]:
            moments = np.stack([pictures.moments(r, s) for r, s in zip(order[i], starts[i], strict=True)])
            return order[i].astype(np.int32), moments, pictures.labels[order[i]][:, None].astype(np.float32)

        losses = []
        with ThreadPoolExecutor(4) as pool:
            ahead = deque(pool.submit(batch, i) for i in range(min(_BATCHES_AHEAD, args.steps)))
            for i in range(args.steps):
                given = ahead.popleft().result()
                if i + _BATCHES_AHEAD < args.steps:
                    ahead.append(pool.submit(batch, i + _BATCHES_AHEAD))
                tv, ntv, ov, value = self.step(tv, ntv, ov, self.data, *given)
                if i < 2 or i % 50 == 49:
                    losses.append(round(float(value), 3))
        averaged = [np.asarray(ov[i]) for i in self.averages]
        assert all(a.shape == v.shape for a, v in zip(averaged, self.start[0], strict=True))
        result: dict[str, Any] = {"held_out": pictures.ids[held_out], "losses": losses}
        for share in SHARES:
            mixed = self._with(averaged, share)
            if len(held_out):
                z = self._judge(mixed, self.data, held_out, [pictures.moments(r, 0.5) for r in held_out])
                result[f"z_{share}"] = z
                y = pictures.labels[held_out]
                print(
                    f"{name}, {share} of the change: accuracy {np.mean((z > 0) == y):.3f}, AUC {auc(z, y):.4f}"
                )
            if len(self.quiet):
                moments = [np.arange(FRAMES, dtype=np.int32)] * len(self.quiet)
                result[f"quiet_{share}"] = q = self._judge(
                    mixed, self.quiet, np.arange(len(self.quiet)), moments
                )
                print(
                    f"{name}, {share} of the change: {int((q > 0).sum())} of {len(q)} quiet windows above 0"
                )
        return {**result, **self._packed(averaged)}

    def _drawn(self, train: np.ndarray, number: int) -> np.ndarray:
        """The clips of each step, (steps, batch size): every pair of data set and class is drawn equally often."""
        pair = np.char.add(self.pictures.datasets[train], self.pictures.labels[train].astype(str))
        rng = np.random.default_rng(number)
        members = [train[pair == p] for p in np.unique(pair)]
        each = -(-self.args.steps * self.args.batch_size // len(members))
        drawn = [
            np.concatenate([rng.permutation(m) for _ in range(-(-each // len(m)))])[:each] for m in members
        ]
        order = np.concatenate([np.array(drawn)[:, i][rng.permutation(len(members))] for i in range(each)])
        return order[: self.args.steps * self.args.batch_size].reshape(self.args.steps, -1)

    def _with(self, averaged: list[np.ndarray], share: float) -> list[np.ndarray]:
        """The published weights plus `share` of the change from them; the last layer is the tuned one in full."""
        trunk = len(averaged) - 2
        return [
            p + share * (a - p) if i < trunk else a
            for i, (a, p) in enumerate(zip(averaged, self.start[0], strict=True))
        ]

    def _judge(
        self, weights: list[np.ndarray], data: Any, rows: np.ndarray, moments: list[np.ndarray]
    ) -> np.ndarray:
        size, found = 32, []
        at = np.array(moments)
        for i in range(0, len(rows), size):
            some, when = rows[i : i + size], at[i : i + size]
            missing = size - len(some)
            some_, when_ = (
                np.concatenate([some, some[:1].repeat(missing)]),
                np.concatenate([when, when[:1].repeat(missing, 0)]),
            )
            if data is not self.data:  # `data` is on the CPU: only the batch goes to the device
                found.append(
                    np.asarray(self.judged(weights, data[some_], np.arange(size), when_))[: len(some)]
                )
            else:
                found.append(np.asarray(self.judged(weights, data, some_, when_))[: len(some)])
        return np.concatenate(found)

    def _packed(self, averaged: list[np.ndarray]) -> dict[str, Any]:
        """The change of the weights as int8 with a scale per output channel; the last layer and vectors as they are."""
        levels = self.args.levels
        values, scales = [], []
        for after, before in list(zip(averaged, self.start[0], strict=True))[:-2]:
            change = after - before
            if change.ndim == 1:
                scales.append(change.astype(np.float32))
                continue
            scale = np.abs(change).reshape(-1, change.shape[-1]).max(0) / levels
            values.append(np.round(change / np.maximum(scale, 1e-12)).astype(np.int8).ravel())
            scales.append(scale.astype(np.float32))
        return {
            "values": np.concatenate(values), "scales": np.concatenate(scales),
            "kernel": averaged[-2], "bias": averaged[-1],
        }  # fmt: skip


def _unpacked(fit: Any, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """The reverse of `Fitter._packed`: the changes of the weights as float32 arrays of these shapes."""
    values, scales, found = fit["values"], fit["scales"], []
    at = scale_at = 0
    for shape in shapes:
        scale = scales[scale_at : scale_at + shape[-1]]
        scale_at += shape[-1]
        if len(shape) == 1:
            found.append(scale)
            continue
        size = int(np.prod(shape))
        found.append(values[at : at + size].reshape(shape).astype(np.float32) * scale)
        at += size
    if at != len(values) or scale_at != len(scales):
        raise SystemExit(
            "the weights in a fit have other sizes than those of the network. Make the fit again with this version"
        )
    return found


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve."""
    ranks = np.argsort(np.argsort(scores, kind="stable")) + 1
    fights = int(labels.sum())
    return float((ranks[labels == 1].sum() - fights * (fights + 1) / 2) / (fights * (len(labels) - fights)))


if __name__ == "__main__":
    sys.exit(main())
