"""An engine for backbones that see each frame by itself first: a frame in several windows is computed only once.

Windows overlap, and the frames evenly spaced in them are often the same. Frames are recognised by their pixels, so that
sharing works alike for files and streams. A batch is one frame, so its result does not depend on what else is judged.
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

#: Frames whose results are kept: those of several windows of ten frames each. A result takes up to 0.4 MB.
_HELD = 64


class FrameSharingEngine(Engine):
    """Makes a window's features from the results of its frames. `runners` take one frame each, (1, S, S, 3) uint8."""

    def __init__(self, name: str, runners: Sequence[Runner], per_frame: PerFrame):
        super().__init__(name, runners)
        self._join = per_frame.join
        self._held: OrderedDict[bytes, Future[Features]] = OrderedDict()
        self._sharing = threading.Lock()

    def submit(self, images: np.ndarray) -> Future[Features]:
        """Queue images (F, S, S, 3) uint8, and return the future of their features (T, C) float32.

        Waits, and raises, as Engine.submit does.
        """
        self._check_process()  # Engine.submit checks it, too, but is not called for frames that are known
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
            except BaseException as e:  # noqa: BLE001 - the result raises it
                whole.set_exception(e)
            finally:
                # A frame's future keeps this function, and would keep all frames of its windows, and all frames of
                # their windows, and so on for ever.
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
