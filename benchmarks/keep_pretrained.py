"""Make the fine-tuned networks of a run with another share of the published weights, without training them again.

    python train_ensemble_models.py ... --members kernel,i3d_tuned --output RUN
    python benchmarks/keep_pretrained.py --run RUN --keep-pretrained 0.25 --output OTHER
    python train_ensemble_models.py ... --members i3d_tuned --keep-pretrained 0.25 --output OTHER

A head that is a whole network ends as the weighted mean of its trained weights and the published ones (Wortsman et al.
2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903). The mean with any other share follows from that mean
and the published weights. This script computes it for each i3d_tuned below RUN and writes it to the same folder below
OTHER as given weights (given_weights.npz), which the last command uses instead of training.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from violence_detection import cli
from violence_detection.backbones import numpy_pickle
from violence_detection.backbones.networks import i3d
from violence_detection.errors import UserError
from violence_detection.training import (
    fine_tuning,
    given_weights,
    model_record,
    run_folder,
    saved_heads,
    tuned_network,
)


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument(
        "--run", type=Path, required=True, help="--output of the train_ensemble_models.py that trained them"
    )
    p.add_argument(
        "--keep-pretrained", type=float, required=True, help="new share of the published weights, 0 to 1"
    )
    p.add_argument(
        "--backbone-weights", type=Path, help="file with the published weights (default: download it)"
    )
    p.add_argument(
        "--output", type=Path, required=True, help="--output of the train_ensemble_models.py to run next"
    )
    args = cli.parse(p)
    if not 0 <= args.keep_pretrained <= 1:
        raise UserError(f"--keep-pretrained {args.keep_pretrained} is not between 0 and 1")
    found = sorted(args.run.rglob(f"i3d_tuned/{run_folder.BEST_NAME}"))
    if not found:
        raise UserError(
            f"no trained i3d_tuned was found below {args.run}. Give --run the --output of a training with it"
        )
    for path in found:
        member = path.parent
        arrays = with_share(member, args.keep_pretrained, args.backbone_weights)
        target = args.output / member.relative_to(args.run) / given_weights.FILE_NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, *arrays)
    cli.print_summary({"networks": len(found), "output": str(args.output)})
    return 0


def with_share(member: Path, keep: float, published: Path | None = None) -> list[np.ndarray]:
    """The weights of the network in the folder `member`, with the share `keep` of the published weights.

    The arrays are in the order of `given_weights.npz`; those of the last layer do not change. `published`: the file
    with the published weights (default: download it). Raises UserError if the network consists of published weights
    alone (`keep_pretrained` is 1), so that the trained ones cannot be computed.
    """
    record = model_record.read(member / run_folder.CONFIG_NAME)
    kept = record["head"]["keep_pretrained"]
    if kept == 1:
        raise UserError(
            f"{member} was trained with --keep-pretrained 1, so its trained weights are lost. Train it again"
        )
    model = saved_heads.load(member / run_folder.BEST_NAME)
    trunk = model.get_layer(tuned_network.TRUNK)
    last = [v.numpy() for v in model.trainable_weights[len(trunk.trainable_weights) :]]
    weights = fine_tuning.published_weights(record, published)
    base = i3d.folded(trunk.network, numpy_pickle.read_tree(weights))
    share = (1 - keep) / (1 - kept)
    return [*(b + share * (w - b) for b, w in zip(base, trunk.get_weights(), strict=True)), *last]


if __name__ == "__main__":
    cli.run_main(main)
