"""What every room agrees on."""

from __future__ import annotations

__version__ = "0.1.0"

#: Class order everywhere: index 0 is nonfight, index 1 is fight; every model's output is P(fight).
CLASS_NAMES = ("nonfight", "fight")

#: The P(violent) from which a clip or window counts as violent, unless another is asked for.
DEFAULT_THRESHOLD = 0.5

#: The table of step 2, in <root>/combined_all.
MANIFEST_NAME = "manifest.csv"

#: What one wants of a model: as right as it can be (the default), few false alarms, or few missed fights.
BALANCED = "balanced"
OPERATING_POINTS = (BALANCED, "low-false-alarm", "high-recall")

#: The parts of the clips, and what papers call them (docs/glossary.md); said where a part is first named to people.
PART_MEANINGS = {
    "train": "what is learnt from",
    "selection": "cut from train by source, chooses the epoch; papers call it the validation set",
    "val": "held out, chooses nothing; papers call it the test set",
}
#: ensemble.json, cross_validation.json: the member that may judge alone, there if one may. Of an operating point, a
#: camera profile or a verdict: false where the exit is not taken, and all members judge.
EARLY_EXIT_KEY = "early_exit"
#: Of an ensemble's record: whether a part of the picture is looked at closer.
CLOSER_LOOK_KEY = "closer_look"
