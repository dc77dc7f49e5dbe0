"""A selection of a split's images, which are read when they are used."""

from typing import Any, Protocol

import numpy as np


class Images(Protocol):
    """Images by row, u8[N, 48, 48]: an array, or a selection of one."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, index: Any, /) -> np.ndarray:
        """The images of a slice or of rows, u8[B, 48, 48]."""


class Selection:
    """Some images of an array, u8[N, 48, 48]. Nothing is copied before it is indexed, by a slice or rows."""

    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self._images = images  # u8[M, 48, 48], most often memory-mapped
        self._rows = rows  # i64[N]

    def __len__(self) -> int:
        """The number of images."""
        return len(self._rows)

    def __getitem__(self, index: Any, /) -> np.ndarray:
        """The images of a slice or of rows, u8[B, 48, 48]."""
        return self._images[self._rows[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All images of the selection, as numpy asks for them: a copy in memory."""
        return np.asarray(self[:], dtype)
