"""Gradient-boosted trees on a few dozen numbers: what holds only where something else holds too.

Complete trees of one depth on binned columns, by Newton steps on the weighted cross-entropy. Small and
shrunk, they add to a logistic regression what no sum of its columns says; they are no match for it on a
hundred labels.
"""

import numpy as np

DEPTH, TREES, RATE = 3, 40, 0.05
BINS = 32
MIN_WEIGHT = 20.0  # of the examples on either side of a split
L2 = 5.0


class BoostedTrees:
    """Log odds as a sum over trees.

    columns     int64 [trees, 2^depth − 1], which column each inner node asks for, breadth first
    thresholds  float32, the same shape: above it goes right; infinity sends all to the left
    leaves      float64 [trees, 2^depth]
    """

    def __init__(self, columns: np.ndarray, thresholds: np.ndarray, leaves: np.ndarray) -> None:
        self.columns, self.thresholds, self.leaves = columns, thresholds, leaves

    @classmethod
    def fit(
        cls, x: np.ndarray, y: np.ndarray, w: np.ndarray, start: np.ndarray, trees: int = TREES
    ) -> "BoostedTrees":
        """x float32 [N, D], labels y [N] in 0..1, weights w [N] >= 0, start [N]: the log odds to add to.
        The same input gives the same trees.

        Raises ValueError for no weight at all.
        """
        if not w.sum() > 0:
            raise ValueError("boosted trees need at least one example with weight")
        edges = _edges(x)
        bins = _binned(x, edges)
        logits = np.array(start, np.float64)
        inner, outer = 2**DEPTH - 1, 2**DEPTH
        columns, thresholds = np.zeros((trees, inner), np.int64), np.full((trees, inner), np.inf, np.float32)
        leaves = np.zeros((trees, outer))
        for tree in range(trees):
            p = 1 / (1 + np.exp(-logits))
            slope, bend = w * (p - y), w * np.maximum(p * (1 - p), 1e-3)
            node = _grow(bins, edges, slope, bend, w, columns[tree], thresholds[tree])
            up, down = (np.bincount(node, of, outer) for of in (slope, bend))
            leaves[tree] = -RATE * up / (down + L2)
            logits += leaves[tree][node]
        return cls(columns, thresholds, leaves)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """x float32 [N, D] -> what to add to the log odds, float64 [N]."""
        rows, total = np.arange(len(x)), np.zeros(len(x))
        for columns, thresholds, leaves in zip(self.columns, self.thresholds, self.leaves, strict=True):
            node = np.zeros(len(x), np.int64)
            for _ in range(DEPTH):
                node = 2 * node + 1 + (x[rows, columns[node]] > thresholds[node])
            total += leaves[node - len(columns)]
        return total


def _edges(x: np.ndarray) -> list[np.ndarray]:
    """For each column up to BINS − 1 values to split at, halfway between values that occur."""
    edges = []
    for column in x.T:
        values = np.unique(column)
        if len(values) > BINS:
            values = np.unique(np.quantile(column, np.linspace(0, 1, BINS), method="nearest"))
        edges.append(((values[1:] + values[:-1]) / 2).astype(np.float32))
    return edges


def _binned(x: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """uint8 [N, D]; bin b lies above edge b − 1 and not above edge b."""
    columns = [np.searchsorted(own, column, side="left") for own, column in zip(edges, x.T, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def _grow(
    bins: np.ndarray,
    edges: list[np.ndarray],
    slope: np.ndarray,
    bend: np.ndarray,
    w: np.ndarray,
    columns: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    """Fill in one tree's questions; returns the leaf of each example."""
    count, width = bins.shape
    node = np.zeros(count, np.int64)
    for level in range(DEPTH):
        nodes = 2**level
        cell = (node[:, None] * width + np.arange(width)) * BINS + bins
        sums = [_sums(cell, of, nodes * width * BINS).reshape(nodes, width, BINS) for of in (slope, bend, w)]
        best, gain = _best_splits(*sums)
        for place in range(nodes):
            at = nodes - 1 + place
            column, cut = divmod(int(best[place]), BINS)
            if gain[place] > 0 and cut < len(edges[column]):
                columns[at], thresholds[at] = column, edges[column][cut]
        cuts = np.array(
            [_bin_of(edges, columns[nodes - 1 + i], thresholds[nodes - 1 + i]) for i in range(nodes)]
        )
        asked = columns[nodes - 1 + node]
        node = 2 * node + (bins[np.arange(count), asked] > cuts[node])
    return node


def _sums(cell: np.ndarray, of: np.ndarray, cells: int) -> np.ndarray:
    return np.bincount(cell.ravel(), np.repeat(of, cell.shape[1]), cells)


def _bin_of(edges: list[np.ndarray], column: int, threshold: float) -> int:
    return BINS if np.isinf(threshold) else int(np.searchsorted(edges[column], threshold))


def _best_splits(slope: np.ndarray, bend: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(column · BINS + bin, gain) of each node's best split; sums are [nodes, columns, bins]."""
    left = [of.cumsum(2) for of in (slope, bend, w)]
    whole = [of[:, :, -1:] for of in left]
    right = [all_ - own for all_, own in zip(whole, left, strict=True)]
    gain = sum(s**2 / (b + L2) for s, b in ((left[0], left[1]), (right[0], right[1])))
    gain = gain - whole[0] ** 2 / (whole[1] + L2)
    gain = np.where((left[2] >= MIN_WEIGHT) & (right[2] >= MIN_WEIGHT), gain, 0.0)
    flat = gain.reshape(len(gain), -1)
    best = flat.argmax(1)
    return best, flat[np.arange(len(flat)), best]
