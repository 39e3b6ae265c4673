"""Constants that the whole package shares."""

from __future__ import annotations

__version__ = "0.1.0"

#: Class order everywhere: index 0 is nonfight, index 1 is fight; every model's output is P(fight).
CLASS_NAMES = ("nonfight", "fight")

#: The P(violent) from which a clip or window counts as violent, unless another threshold is asked for.
DEFAULT_THRESHOLD = 0.5

#: The table of clips that step 2 writes to <root>/combined_all.
MANIFEST_NAME = "manifest.csv"

#: Operating points: as many right verdicts as possible (the default), few false alarms, or few missed fights.
BALANCED = "balanced"
OPERATING_POINTS = (BALANCED, "low-false-alarm", "high-recall")

#: The parts of the clips, and what papers call them (docs/glossary.md); shown where a part is first named to people.
PART_MEANINGS = {
    "train": "what is learnt from",
    "selection": "cut from train by source, chooses the epoch; papers call it the validation set",
    "val": "held out, chooses nothing; papers call it the test set",
}
#: In ensemble.json and cross_validation.json: the member that may judge alone; absent if none may. Of an operating
#: point, a camera profile or a verdict: false if the early exit is not taken, so that all members judge.
EARLY_EXIT_KEY = "early_exit"
#: In an ensemble's record: whether it takes a closer look at a part of the picture.
CLOSER_LOOK_KEY = "closer_look"
