"""How alike clips look to a backbone, and which clips of other sources look more alike than others do.

A clip's descriptor is its features' mean over time. Common to all clips and to the backbone's channels is much that
tells nothing of a place, so descriptors are centred and whitened by principal components before the cosine is taken
(Jegou & Chum, "Negative evidences and co-occurences in image retrieval", ECCV 2012), fitted on all clips together.

What different sources give is measured, not assumed: each training clip has a nearest training clip of another source,
each training source another that most of its clips are alike. Judged clips and sources are held against those of their
own data set, on Fisher's scale (arctanh of the cosine), which makes such similarities about normal: beyond the median
by so many standard deviations, taken from the quartiles, they are more alike than different sources are.
A yardstick of few sources is unsure of its quartiles, so its limit is further off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Standard deviations above the median of other sources. Measured in docs/results.md ("Leakage by feature").
CLIP_LIMIT, SOURCE_LIMIT = 4.5, 4.0
#: Clips that a source needs to be compared as one.
SOURCE_CLIPS = 3
#: Training clips or sources that make a yardstick; of one data set, else of all together.
FEWEST_CLIPS, FEWEST_SOURCES = 50, 10
#: Components that are kept, and clips that each of them must rest on.
COMPONENTS, _CLIPS_A_COMPONENT = 64, 8
#: Training clips that make the yardstick, and clips that make the components, at most: whole sources, drawn by a seed.
_MOST_MEASURED = 4_000
_QUARTILE = 0.6745  # of the normal distribution
_UNSURE = 3.0  # of quartiles of few sources: two standard errors of the spread that they give
#: Cosines beyond are equal: with this limit nothing but a copy can be found.
HIGHEST = 0.999
_CHUNK = 256


@dataclass(frozen=True)
class Yardstick:
    """What different sources give: the limit as a cosine, the median, and how many clips or sources it rests on."""

    limit: float
    typical: float
    measured: int
    of: str


@dataclass(frozen=True)
class Lookalikes:
    """What was found; tables have one row a judged clip, and one a judged source of SOURCE_CLIPS clips or more.

    clips: clip_id, similarity, neighbour (the nearest training clip's id), neighbour_source, limit, beyond.
    sources: source_group, dataset, clips, similarity, like (the training source), limit, beyond.
    yardsticks: data set -> that of its clips.
    """

    clips: pd.DataFrame
    sources: pd.DataFrame
    yardsticks: dict[str, Yardstick]


def enough(train: pd.DataFrame) -> str:
    """Why training clips are too few to say what different sources give; empty where they are not."""
    n, n_sources = len(train), train.source_group.nunique()
    if n >= FEWEST_CLIPS and n_sources >= FEWEST_SOURCES:
        return ""
    return (
        f"the features of {n} training clips from {n_sources} sources are there; to learn how alike different "
        f"sources are takes {FEWEST_CLIPS} from {FEWEST_SOURCES}"
    )


def compare(
    judged: pd.DataFrame, judged_values: np.ndarray, train: pd.DataFrame, train_values: np.ndarray
) -> Lookalikes:
    """Compare judged clips with training clips of other sources.

    `judged`, `train`: rows with clip_id, dataset and source_group; the values: their descriptors, (n, C) float32. A
    clip is compared with none of a source of the same name. Raises ValueError where `enough` says why.
    """
    if why := enough(train):
        raise ValueError(why)
    both = whitened(np.concatenate([judged_values, train_values]))
    a, b = both[: len(judged)], both[len(judged) :]
    index = _SourceIndex(b, train.source_group.to_numpy(str))
    drawn = _whole_sources(train.source_group.to_numpy(str), _MOST_MEASURED)
    null = train.iloc[drawn]
    null_clips, null_sources = index.look_up(b[drawn], null)
    clips, sources = index.look_up(a, judged)
    clips["neighbour"] = train.clip_id.to_numpy()[clips.pop("position")]
    sticks = {d: _yardstick(null_clips, d, CLIP_LIMIT, FEWEST_CLIPS) for d in sorted(set(judged.dataset))}
    clips = _against(clips, sticks)
    if len(null_sources) < FEWEST_SOURCES:
        return Lookalikes(clips, _against(sources.iloc[:0], {}), sticks)
    of_sources = {d: _yardstick(null_sources, d, SOURCE_LIMIT, FEWEST_SOURCES) for d in sticks}
    return Lookalikes(clips, _against(sources, of_sources), sticks)


def whitened(descriptors: np.ndarray) -> np.ndarray:
    """(n, C) to (n, at most COMPONENTS) float32 of length 1."""
    x = np.asarray(descriptors, np.float32)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = x - x.mean(axis=0)
    sample = x
    if len(x) > _MOST_MEASURED:
        sample = x[np.random.default_rng(0).choice(len(x), _MOST_MEASURED, replace=False)]
    kept = max(2, min(COMPONENTS, len(x) // _CLIPS_A_COMPONENT))
    values, vectors = _principal_components(sample, kept)
    scale = 1 / np.sqrt(np.maximum(values, 1e-12 * values[0]))
    y = x @ (vectors * scale).astype(np.float32)
    return y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)


def _principal_components(centred: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest variances, (kept,), and their directions, (C, kept), of (n, C); fewer where there are fewer.

    Of what has more channels than clips, as pictures have, through the products of clips: (n, n) numbers, not (C, C).
    """
    n, channels = centred.shape
    by_clip = channels > n
    product = centred @ centred.T if by_clip else centred.T @ centred
    values, vectors = np.linalg.eigh(product.astype(np.float64) / n)
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    if by_clip:
        vectors = centred.T @ (vectors / np.sqrt(n * np.maximum(values, 1e-12 * values[0]))).astype(
            np.float32
        )
    return values, vectors


def _whole_sources(groups: np.ndarray, most: int) -> np.ndarray:
    """Positions of the clips of sources drawn until there are `most` clips, sorted; of none that is larger alone."""
    if len(groups) <= most:
        return np.arange(len(groups))
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    order = order[sizes[order] <= most]
    chosen = order[np.cumsum(sizes[order]) <= most]
    return np.flatnonzero(np.isin(inverse, chosen))


class _SourceIndex:
    """Training clips by source: `values` (n, K) of length 1, `groups` (n,)."""

    def __init__(self, values: np.ndarray, groups: np.ndarray):
        self.order = np.argsort(groups, kind="stable")
        self.values = values[self.order]
        self.names, self.starts = np.unique(groups[self.order], return_index=True)
        self.ends = np.append(self.starts[1:], len(groups))

    def look_up(self, values: np.ndarray, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """For clips the nearest of another source; for their sources the one that most of their clips are alike.

        Similarity of a source: the median over its clips of the nearest clip of one training source, the highest over
        those sources. Tables as in Lookalikes, with `position` for `neighbour`, without limits; `z` is Fisher's.
        """
        import pandas as pd

        groups = rows.source_group.to_numpy(str)
        best, source = np.empty(len(rows), np.float32), np.empty(len(rows), int)
        position = np.empty(len(rows), int)
        of_sources = []
        for name, at, by_source in self._by_source(values, groups):
            best[at], source[at] = by_source.max(axis=1), by_source.argmax(axis=1)
            for i in at:
                start, end = self.starts[source[i]], self.ends[source[i]]
                position[i] = self.order[start + int((self.values[start:end] @ values[i]).argmax())]
            if len(at) >= SOURCE_CLIPS:
                medians = np.median(by_source, axis=0)
                like = int(medians.argmax())
                dataset = rows.dataset.iloc[at[0]]
                of_sources.append((name, dataset, len(at), float(medians[like]), str(self.names[like])))
        clips = pd.DataFrame(
            {
                "clip_id": rows.clip_id.to_numpy(),
                "dataset": rows.dataset.to_numpy(),
                "source_group": groups,
                "similarity": best.astype(float),
                "position": position,
                "neighbour_source": self.names[source],
            }
        )
        columns = ["source_group", "dataset", "clips", "similarity", "like"]
        return clips, pd.DataFrame(of_sources, columns=columns).astype({"similarity": float})

    def _by_source(
        self, values: np.ndarray, groups: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Each source's name, its clips' positions, and their nearest cosine to each training source, (clips, sources).

        A source of the same name is as far as can be.
        """
        for name in np.unique(groups):
            at = np.flatnonzero(groups == name)
            parts = [
                np.maximum.reduceat(values[some] @ self.values.T, self.starts, axis=1)
                for some in np.array_split(at, -(-len(at) // _CHUNK))
            ]
            by_source = np.concatenate(parts)
            by_source[:, self.names == name] = -1.0
            yield str(name), at, by_source


def _yardstick(null: pd.DataFrame, dataset: str, deviations: float, fewest: int) -> Yardstick:
    """What different sources of a data set give, or of all of them where it has too few."""
    own = null[null.dataset == dataset]
    used, of = (own, dataset) if len(own) >= fewest else (null, "all data sets")
    lower, median, upper = np.quantile(_fisher(used.similarity.to_numpy(float)), [0.25, 0.5, 0.75])
    spread = max(upper - median, (upper - lower) / 2) / _QUARTILE
    unsure = 1 + _UNSURE / np.sqrt(used.source_group.nunique())
    limit = np.tanh(median + deviations * unsure * spread)
    return Yardstick(min(float(limit), HIGHEST), float(np.tanh(median)), len(used), of)


def _against(found: pd.DataFrame, sticks: dict[str, Yardstick]) -> pd.DataFrame:
    limits = [sticks[d].limit for d in found.dataset]
    return found.assign(limit=limits, beyond=found.similarity.to_numpy(float) >= np.array(limits, float))


def _fisher(cosine: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(cosine, -HIGHEST, HIGHEST))
