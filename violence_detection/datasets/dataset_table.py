"""The catalogue as a table to read."""

from __future__ import annotations

from collections.abc import Iterable

from violence_detection.datasets.catalogue import Dataset, DataSource
from violence_detection.system.redaction import safe_url

_HEADER = ("key", "title", "set", "archive", "fight", "nonfight", "licence", "first source")


def table(datasets: Iterable[Dataset]) -> str:
    """One line per data set; then the size of the roadmap's archives, the roadmap's wrong counts, and all terms."""
    datasets = list(datasets)
    rows = [_HEADER, *(_row(d) for d in datasets)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    remarks = [
        f"{d.key}: the roadmap says {d.roadmap_clips:,} clips; {sum(d.clips.values()):,} are published"
        for d in datasets
        if d.roadmap_clips is not None
    ]
    total_bytes = sum(d.archive_bytes for d in datasets if d.roadmap)
    lines.append(
        f"archives of the roadmap's {sum(d.roadmap for d in datasets)} data sets: {total_bytes / 1e9:.0f} GB in total"
    )
    terms = ["terms:", *(f"  {d.key}: {d.terms}" for d in datasets)]
    return "\n".join(lines + remarks + terms)


def _row(d: Dataset) -> tuple[str, ...]:
    size = f"{d.archive_bytes / 1e9:.1f} GB" if d.archive_bytes >= 1e9 else f"{d.archive_bytes / 1e6:.0f} MB"
    what = " videos" if d.untrimmed else ""
    return (
        d.key,
        d.title,
        "roadmap" if d.roadmap else "optional",
        size,
        f"{d.clips['fight']:,}{what}",
        f"{d.clips['nonfight']:,}{what}",
        d.licence,
        source_name(d.sources[0]),
    )


def source_name(source: DataSource) -> str:
    """How a source is shown: `kaggle:owner/name`, its address, or `by hand: address`."""
    if source.kind == "kaggle":
        return f"kaggle:{source.slug}"
    return safe_url(source.url) if source.kind == "url" else f"by hand: {safe_url(source.url)}"
