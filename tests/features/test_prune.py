"""Which files pruning takes for the cache's own."""

from __future__ import annotations

from pathlib import Path

from violence_detection.features import prune
from violence_detection.features.cache import FeatureStore


def test_a_folder_that_has_the_name_of_an_entry_stays(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path, {"backbone": "b", "stream": "rgb"})
    for name in ("gone", "mine"):
        store.path(name).mkdir()
    (store.path("mine") / "notes.txt").touch()
    store.path("clip").touch()
    assert prune._entries(store.folder) == [store.path("clip")]
    prune.delete([prune.Unused(store.folder, "all of it", 0, None, 3600.0)])
    assert sorted(store.folder.iterdir()) == [store.path("gone"), store.path("mine")]
