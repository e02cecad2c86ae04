"""Drawing by priority: proportional prioritised replay (Schaul et al. 2016, arXiv:1511.05952), over a tree of sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-6  # added to every |delta|, so that nothing is forgotten (sec. 3.3, epsilon)


class Priorities:
    """One for each of some places, 0 where nothing may be drawn.

    P(i) = p_i^alpha / sum_k p_k^alpha, p_i = |delta_i| + 1e-6           eq. 1
    w_i = (n P(i))^-beta / max_j w_j over the batch                      sec. 3.4

    What comes in gets the largest priority so far, so that it is drawn at least once (algorithm 1, line 6).
    """

    def __init__(self, places: int, alpha: float) -> None:
        self.alpha, self.places = alpha, places
        self.leaves = _leaves(places)
        self.sums = np.zeros(2 * self.leaves)  # node k is the sum of nodes 2k and 2k + 1; leaves hold p^alpha
        self.present = 0  # places that may be drawn
        self.most = 1.0  # the largest p^alpha so far

    @staticmethod
    def takes(places: int) -> int:
        """Bytes for so many."""
        return 16 * _leaves(places)

    def _set(self, index: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        nodes = index + self.leaves
        self.sums[nodes] = value
        while (nodes := np.unique(nodes >> 1))[0]:
            self.sums[nodes] = self.sums[2 * nodes] + self.sums[2 * nodes + 1]

    def welcome(self, index: NDArray[np.int64], happened: NDArray[np.bool_]) -> None:
        """New ones at these places (B,), in place of what was there."""
        before = self.sums[index + self.leaves] > 0
        self.present += int(happened.sum()) - int(before.sum())
        self._set(index, np.where(happened, self.most, 0.0))

    def assign(self, index: NDArray[np.int64], td_error: NDArray[Any]) -> None:
        """|delta| of what was drawn. Of a place that was drawn twice the last one counts."""
        last = len(index) - 1 - np.unique(index[::-1], return_index=True)[1]
        value = (np.abs(td_error[last]).astype(np.float64) + SMALLEST) ** self.alpha
        self.most = max(self.most, float(value.max()))
        self._set(index[last], value)

    def draw(self, uniform: NDArray[np.float64], beta: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places (B,), one from each of B equal shares of the sum (appendix B.2.1), and their weights."""
        total = self.sums[1]
        left = (np.arange(len(uniform)) + uniform) * (total / len(uniform))
        nodes = np.ones(len(uniform), np.int64)
        while nodes[0] < self.leaves:
            nodes *= 2
            right = (left >= self.sums[nodes]) & (self.sums[nodes + 1] > 0)
            left -= np.where(right, self.sums[nodes], 0.0)
            nodes += right
        weight = (self.present * self.sums[nodes] / total) ** -beta
        return nodes - self.leaves, (weight / weight.max()).astype(np.float32)

    @property
    def kept(self) -> NDArray[np.float64]:
        """(places,) p^alpha; `rebuild` takes over what is written there."""
        return self.sums[self.leaves : self.leaves + self.places]

    def rebuild(self, most: float) -> None:
        """Sums anew. Raises ValueError where what is kept is below 0, or beyond the largest so far."""
        if not 0 < most < np.inf or not ((self.kept >= 0) & (self.kept <= most)).all():
            raise ValueError("priorities that are none")
        self.most = most
        level = self.leaves // 2
        while level:
            nodes = np.arange(level, 2 * level)
            self.sums[nodes] = self.sums[2 * nodes] + self.sums[2 * nodes + 1]
            level //= 2
        self.present = int((self.kept > 0).sum())


def _leaves(places: int) -> int:
    """The next power of two."""
    return 1 << max(places - 1, 1).bit_length()
