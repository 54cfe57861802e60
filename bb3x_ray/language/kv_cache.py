"""Keys and values of a batch whose rows come and go.

All rows end at the same column; a shorter one has unused columns on its left, which the mask hides.
The columns in use are a window on a larger buffer:

    column        0 . . . start . . . . . . end . . capacity
    row 0             [     x x x x x x x x ]            the window moves right, a column a step
    row 1 (free)      [                     ]            the next request that fits is written here
    row 2             [           x x x x x ]

So a step writes one column, and a request that joins writes one row; nothing else is copied, except
when the buffer is rebuilt with more rows, fewer rows, or more columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_SPARE_COLUMNS = 64

States = Sequence[tuple[Tensor, Tensor]]


@dataclass
class _Window:
    rows: int = 0
    start: int = 0
    end: int = 0

    @property
    def width(self) -> int:
        return self.end - self.start


class _WindowLayer(DynamicLayer):
    """One layer's buffers: [rows, heads, capacity, head size]."""

    def __init__(self, window: _Window, key_buffer: Tensor, value_buffer: Tensor) -> None:
        super().__init__()
        self.window = window
        self.key_buffer, self.value_buffer = key_buffer, value_buffer
        self.dtype, self.device = key_buffer.dtype, key_buffer.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the columns after the window, and return them with the window."""
        start, end = self.window.start, self.window.end
        after = end + key_states.shape[-2]
        self.key_buffer[:, :, end:after] = key_states
        self.value_buffer[:, :, end:after] = value_states
        return self.key_buffer[:, :, start:after], self.value_buffer[:, :, start:after]

    def get_seq_length(self) -> int:
        return self.window.width


class BatchCache:
    """The cache of a running batch, and its attention mask. Rows are numbered from 0."""

    def __init__(self, device: torch.device) -> None:
        self._window = _Window()
        self._layers: list[_WindowLayer] = []
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)  # [rows, capacity]

    @property
    def rows(self) -> int:
        return self._window.rows

    def begin_step(self) -> tuple[Cache, Tensor]:
        """The cache to hand to the model for one token a row, and the mask [rows, window + 1]."""
        if self._window.end == self._mask.shape[1]:
            self._rebuild(range(self.rows), self.rows, left=0, right=_SPARE_COLUMNS)
        # A free row sees its newest column only: a row that sees nothing would turn into NaN.
        self._mask[:, self._window.end] = 1
        return Cache(layers=list(self._layers)), self._mask[:, self._window.start : self._window.end + 1]

    def end_step(self, lengths: Sequence[int]) -> None:
        """Take in the column just written; drop those on the left that no row of `lengths` needs."""
        self._window.end += 1
        self._window.start = self._window.end - max(lengths, default=0)

    def join(self, rows: Sequence[int], states: States, lengths: Sequence[int], total_rows: int) -> None:
        """Write newcomers into free or new `rows`.

        states    keys and values of each layer, [len(rows), heads, width, head size], left-padded
        lengths   how many columns of each newcomer are in use
        """
        width = max(lengths)
        if not self._layers:
            self._create(states, total_rows, width)
        elif width > self._window.end or total_rows > self.rows:
            left = max(0, width - self._window.width)
            self._rebuild(range(self.rows), total_rows, left=left, right=_SPARE_COLUMNS)
        window = self._window
        window.start = min(window.start, window.end - width)
        first = window.end - width
        index = torch.as_tensor(rows, device=self._mask.device)
        distance = torch.arange(window.end - 1, -1, -1, device=index.device)
        used = distance < torch.as_tensor(lengths, device=index.device).unsqueeze(1)
        self._mask[index, : window.end] = used.long()
        if not width:
            return
        seen = used[:, None, first:, None]
        for layer, (keys, values) in zip(self._layers, states, strict=True):
            # What a kernel makes of columns that see nothing may be NaN, and 0 × NaN is NaN: write zeros.
            layer.key_buffer[index, :, first : window.end] = torch.where(seen, keys, 0)
            layer.value_buffer[index, :, first : window.end] = torch.where(seen, values, 0)

    def free(self, row: int) -> None:
        self._mask[row] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order; they become rows 0, 1, …"""
        self._rebuild(rows, len(rows), left=0, right=_SPARE_COLUMNS)

    def clear(self) -> None:
        self._window, self._layers = _Window(), []
        self._mask = self._mask.new_zeros(0, 0)

    def _create(self, states: States, rows: int, width: int) -> None:
        self._window = _Window(rows, width, width)
        self._mask = self._mask.new_zeros(rows, width + _SPARE_COLUMNS)

        def empty(like: Tensor) -> Tensor:
            return like.new_zeros(rows, like.shape[1], width + _SPARE_COLUMNS, like.shape[3])

        self._layers = [_WindowLayer(self._window, empty(keys), empty(values)) for keys, values in states]

    def _rebuild(self, keep: Sequence[int], rows: int, left: int, right: int) -> None:
        """A new buffer: the kept rows first, `left` columns before the window and `right` after it."""
        window = self._window
        index = torch.as_tensor(list(keep), dtype=torch.long, device=self._mask.device)

        def moved(old: Tensor, columns: int) -> Tensor:
            shape = list(old.shape)
            shape[0], shape[columns] = rows, left + window.width + right
            new = old.new_zeros(shape)
            part = new.narrow(0, 0, len(index)).narrow(columns, left, window.width)
            part.copy_(old.narrow(columns, window.start, window.width).index_select(0, index))
            return new

        for layer in self._layers:
            layer.key_buffer = moved(layer.key_buffer, 2)
            layer.value_buffer = moved(layer.value_buffer, 2)
        self._mask = moved(self._mask, 1)
        window.rows, window.start, window.end = rows, left, left + window.width
