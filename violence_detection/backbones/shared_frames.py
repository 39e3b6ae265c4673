"""An engine for backbones that see each frame by itself first: a frame in several windows goes through it once.

Windows overlap, and frames evenly spaced in them are often the same ones. Frames are known by their pixels, so that a
file and a stream share alike. One frame is a batch: what it gives does not depend on what else is being judged.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from violence_detection.backbones.engines import Engine, Features, Runner
from violence_detection.backbones.registry import PerFrame

#: Frames whose outcome is held: several windows of ten frames each, of 0.4 MB.
_HELD = 64


class FrameSharingEngine(Engine):
    """Features of a window from those of its frames. `runners` take one frame each, (1, S, S, 3) uint8."""

    def __init__(self, name: str, runners: Sequence[Runner], per_frame: PerFrame):
        super().__init__(name, runners)
        self._join = per_frame.join
        self._held: OrderedDict[bytes, Future[Features]] = OrderedDict()
        self._sharing = threading.Lock()

    def submit(self, images: np.ndarray) -> Future[Features]:
        """Features (T, C) float32 to come, for images (F, S, S, 3) uint8. Waits, and raises, as Engine does."""
        self._check_process()  # of frames that it holds nothing would be submitted
        parts = [self._of_frame(image) for image in images]
        whole: Future[Features] = Future()
        left = [len(parts)]

        def one_done(_: Future[Features]) -> None:
            with self._sharing:
                left[0] -= 1
                if left[0]:
                    return
            try:
                whole.set_result(self._join(np.stack([part.result()[0] for part in parts])))
            except BaseException as e:  # noqa: BLE001 - raised where the result is asked for
                whole.set_exception(e)
            finally:
                # a frame's future keeps this function for ever, and with it the frames of its windows, and of theirs
                parts.clear()

        for part in tuple(parts):
            part.add_done_callback(one_done)
        return whole

    def _of_frame(self, image: np.ndarray) -> Future[Features]:
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        with self._sharing:
            known = self._held.get(digest)
            if known is not None and not (known.done() and known.exception()):
                self._held.move_to_end(digest)
                return known
        made = super().submit(image[np.newaxis])
        with self._sharing:
            self._held[digest] = made
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return made
