"""The emotions of the faces of a film over time."""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fer_jax.data.labels import EMOTIONS
from fer_jax.faces.face import Face


class Track(NamedTuple):
    """A face of a film and its probabilities."""

    number: int
    times: np.ndarray  # f32[N] seconds
    probabilities: np.ndarray  # f32[N, 8]


class Timeline:
    """The probabilities of all faces of a film. An hour at 25 frames a second takes 3 MB for each face."""

    def __init__(self) -> None:
        self.frames = 0
        self.end_s = 0.0
        self._values: dict[int, array] = {}  # nine numbers for each frame of a track: time and probabilities

    def add(self, time_s: float, faces: Sequence[Face]) -> None:
        """Add the faces of the next frame."""
        self.frames, self.end_s = self.frames + 1, time_s
        for face in faces:
            values = self._values.setdefault(face.track or 0, array("f"))
            values.append(time_s)
            values.extend(face.emotions.values())

    def tracks(self) -> list[Track]:
        """Return the faces, those in most frames first."""
        tables = {n: np.array(values, np.float32).reshape(-1, 1 + len(EMOTIONS)) for n, values in self._values.items()}
        tracks = [Track(number, table[:, 0], table[:, 1:]) for number, table in tables.items()]
        return sorted(tracks, key=lambda track: -len(track.times))


def clock(time_s: float) -> str:
    """Return a time as minutes and seconds: 1:05.2."""
    tenths = round(10 * time_s)
    return f"{tenths // 600}:{tenths // 10 % 60:02}.{tenths % 10}"
