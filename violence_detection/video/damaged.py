"""What is said of videos that take their process down or keep it for ever, and how long one may take.

Videos are decoded in processes of their own (system/processes.py), since nobody knows what is in them.
"""

from __future__ import annotations

#: For one file. Hours of video decode in minutes; what takes longer is damaged, or its disk does not answer.
TIME_LIMIT_S = 30 * 60.0
CRASHED = "takes the decoder down: the process that read it died"
TIMED_OUT = (
    f"takes more than {TIME_LIMIT_S / 60:.0f} min to read, and was given up; copy it to a faster disk if that is why, "
    "else convert it (ffmpeg -i OLD NEW.mp4) or remove it, and run the same command again"
)
