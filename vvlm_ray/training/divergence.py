"""When a run has gone astray: its loss or gradient far beyond its own history, not for a batch but for good."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

WINDOW, PATIENCE = 100, 5  # steps that are remembered; steps in a row beyond them that end a run
_LOSS_FACTOR, _LOSS_MARGIN = 3.0, 2.0  # nats per token; a spike of one odd batch stays below, or passes
_NORM_FACTOR, _NORM_MARGIN = 100.0, 10.0


class History:
    """Losses and gradient norms of the steps that went well, and how many in a row have not."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses, self._norms = deque[float](maxlen=WINDOW), deque[float](maxlen=WINDOW)
        self.num_far = 0
        self.last = ""
        for loss in losses:
            self.add(loss, 0.0)

    def add(self, loss: float, norm: float) -> None:
        """Take note of a step. Beyond: loss > 3 x median + 2, or norm > 100 x median + 10, of the steps remembered."""
        loss_limit = _LOSS_FACTOR * median(self._losses or [loss]) + _LOSS_MARGIN
        norm_limit = _NORM_FACTOR * median(self._norms or [norm]) + _NORM_MARGIN
        if loss > loss_limit or norm > norm_limit:
            self.num_far += 1
            self.last = f"loss {loss:.4g} (limit {loss_limit:.4g}), gradient norm {norm:.4g} (limit {norm_limit:.4g})"
            return
        self.num_far = 0
        self._losses.append(loss)
        if norm:
            self._norms.append(norm)

    @property
    def has_diverged(self) -> bool:
        return self.num_far >= PATIENCE
