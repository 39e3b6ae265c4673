"""Find judged clips and sources that look more like training than different sources look like each other.

A clip's descriptor is the mean of its features over time. Much of it is common to all clips or shared between
correlated channels and says nothing about the place. Descriptors are therefore centred, and whitened by principal
components fitted on judged and training clips together, before cosines are taken (Jegou & Chum, "Negative evidences and
co-occurences in image retrieval", ECCV 2012).

How similar different sources are is measured, not assumed: for each training clip, its cosine to the nearest training
clip of another source; for each training source, its similarity to the most similar other training source. These
values, of the judged clip's own data set where it has enough, are the yardstick. On Fisher's scale (arctanh of the
cosine) they are about normal. A judged clip or source is suspicious if it lies above their median by CLIP_LIMIT or
SOURCE_LIMIT standard deviations, estimated from the quartiles. Quartiles of few sources are uncertain, so the fewer
sources a yardstick rests on, the higher is its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Standard deviations above the yardstick's median from which a clip, or a source, is suspicious. What these limits
#: find: docs/results.md ("Leakage by feature").
CLIP_LIMIT, SOURCE_LIMIT = 4.5, 4.0
#: Clips that a source needs to be compared as a whole.
SOURCE_CLIPS = 3
#: Training clips and training sources that a yardstick needs: of one data set for its own, else of all together.
FEWEST_CLIPS, FEWEST_SOURCES = 50, 10
#: Most principal components that are kept.
COMPONENTS = 64
#: Clips needed for each component that is kept; two components are kept in any case.
_CLIPS_A_COMPONENT = 8
#: Most training clips that yardsticks are measured on (whole sources are drawn), and most clips that the components are
#: fitted on (single clips are drawn); both with a fixed seed.
_MOST_MEASURED = 4_000
#: Upper quartile of the standard normal distribution.
_UPPER_QUARTILE = 0.6745
#: Relative increase of the limit, to be divided by the square root of the number of sources: about two standard errors
#: of a standard deviation that is estimated from quartiles.
_QUARTILE_UNCERTAINTY = 3.0
#: Cosines above this are not told apart: a yardstick with this limit finds nothing but copies.
HIGHEST = 0.999
#: Clips of a source that are compared at once.
_CHUNK = 256


@dataclass(frozen=True)
class Yardstick:
    """How similar different sources of a data set are.

    `limit`: the cosine from which a clip or source is suspicious. `typical`: the median cosine. `measured`: the number
    of clips or sources that both rest on. `of`: the data set of these, or "all data sets".
    """

    limit: float
    typical: float
    measured: int
    of: str


@dataclass(frozen=True)
class Lookalikes:
    """The result of `compare`.

    clips: one row per judged clip: clip_id, dataset, source_group, similarity (cosine to the nearest training clip of
    another source), neighbour (that clip's id), neighbour_source, limit, beyond (whether similarity reaches limit).
    sources: one row per judged source of SOURCE_CLIPS clips or more: source_group, dataset, clips (their number),
    similarity, like (the most similar training source), limit, beyond. Empty where fewer than FEWEST_SOURCES training
    sources have that many clips.
    yardsticks: data set -> the yardstick of its clips.
    """

    clips: pd.DataFrame
    sources: pd.DataFrame
    yardsticks: dict[str, Yardstick]


def enough(train: pd.DataFrame) -> str:
    """Why there are too few training clips or sources to tell how similar different sources are; empty if not."""
    n, n_sources = len(train), train.source_group.nunique()
    if n >= FEWEST_CLIPS and n_sources >= FEWEST_SOURCES:
        return ""
    return (
        f"there are features of {n} training clips from {n_sources} sources; to learn how alike different sources are, "
        f"{FEWEST_CLIPS} from {FEWEST_SOURCES} are needed"
    )


def compare(
    judged: pd.DataFrame, judged_values: np.ndarray, train: pd.DataFrame, train_values: np.ndarray
) -> Lookalikes:
    """Compare judged clips and sources with training clips of other sources.

    `judged`, `train`: rows with clip_id, dataset and source_group. `judged_values`, `train_values`: their descriptors,
    (n, C) float32. A clip is not compared with training clips whose source has the same name. Raises ValueError with
    the reason that `enough` gives, where it gives one.
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
    yardsticks = {d: _yardstick(null_clips, d, CLIP_LIMIT, FEWEST_CLIPS) for d in sorted(set(judged.dataset))}
    clips = _with_limits(clips, yardsticks)
    if len(null_sources) < FEWEST_SOURCES:
        return Lookalikes(clips, _with_limits(sources.iloc[:0], {}), yardsticks)
    of_sources = {d: _yardstick(null_sources, d, SOURCE_LIMIT, FEWEST_SOURCES) for d in yardsticks}
    return Lookalikes(clips, _with_limits(sources, of_sources), yardsticks)


def whitened(descriptors: np.ndarray) -> np.ndarray:
    """Centre and whiten descriptors: (n, C) to (n, K) float32 with rows of length 1, K at most COMPONENTS."""
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
    """The `kept` largest variances, (K,), and their directions, (C, K), of `centred` (n, C).

    K is smaller than `kept` if n or C is. Where there are more channels than clips, as with pictures, the directions
    are computed from the (n, n) Gram matrix rather than from the (C, C) covariance.
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
    """Draw whole sources with at most `most` clips in all; return the positions of their clips, sorted.

    A source that has more than `most` clips by itself is not drawn.
    """
    if len(groups) <= most:
        return np.arange(len(groups))
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    order = order[sizes[order] <= most]
    chosen = order[np.cumsum(sizes[order]) <= most]
    return np.flatnonzero(np.isin(inverse, chosen))


class _SourceIndex:
    """Training clips in order of their sources: `values` (n, K) with rows of length 1, `groups` (n,) source names."""

    def __init__(self, values: np.ndarray, groups: np.ndarray):
        self.order = np.argsort(groups, kind="stable")
        self.values = values[self.order]
        self.names, self.starts = np.unique(groups[self.order], return_index=True)
        self.ends = np.append(self.starts[1:], len(groups))

    def look_up(self, values: np.ndarray, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Find each clip's nearest training clip of another source, and each source's most similar training source.

        The similarity of a source to a training source is the median over its clips of the cosine to the nearest clip
        of that training source. Returns tables as in Lookalikes, without `limit` and `beyond`, and with `position`, in
        the training clips as they were given, instead of `neighbour`.
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
        """Each source's name, its clips' positions, and their highest cosine to each training source, (clips, sources).

        It is -1 for the training source of the same name.
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
    """The yardstick of a data set, or that of all data sets if it has fewer than `fewest` rows in `null`.

    `null`: the similarities of training clips, or of training sources. `deviations`: CLIP_LIMIT or SOURCE_LIMIT.
    """
    own = null[null.dataset == dataset]
    used, of = (own, dataset) if len(own) >= fewest else (null, "all data sets")
    lower, median, upper = np.quantile(_fisher(used.similarity.to_numpy(float)), [0.25, 0.5, 0.75])
    spread = max(upper - median, (upper - lower) / 2) / _UPPER_QUARTILE
    unsure = 1 + _QUARTILE_UNCERTAINTY / np.sqrt(used.source_group.nunique())
    limit = np.tanh(median + deviations * unsure * spread)
    return Yardstick(min(float(limit), HIGHEST), float(np.tanh(median)), len(used), of)


def _with_limits(found: pd.DataFrame, yardsticks: dict[str, Yardstick]) -> pd.DataFrame:
    limits = [yardsticks[d].limit for d in found.dataset]
    return found.assign(limit=limits, beyond=found.similarity.to_numpy(float) >= np.array(limits, float))


def _fisher(cosine: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(cosine, -HIGHEST, HIGHEST))
