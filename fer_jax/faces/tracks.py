"""The identity of faces over the frames of a film, and probabilities smoothed over time."""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from fer_jax.faces.face import Box, Face

OVERLAP = 0.2  # the smallest intersection over union of two boxes of one face
GAP = 1.0  # seconds: a face that was away for longer is a new one


class _Track(NamedTuple):
    box: Box
    time_s: float
    emotions: dict[str, float]


class Tracker:
    """Numbers for faces that keep over frames while their boxes overlap."""

    def __init__(self, smooth: float = 0) -> None:
        """Make a tracker.

        Args:
            smooth: the time constant, in seconds, of an exponential moving average of the probabilities; 0 for none.
        """
        self._smooth = smooth
        self._tracks: dict[int, _Track] = {}
        self._count = 0
        self._latest = 0.0  # the time of the last frame

    def update(self, time_s: float, faces: Sequence[Face]) -> list[Face]:
        """Return the faces of the next frame with `track` set, and smoothed probabilities if asked for."""
        oldest = min(time_s - GAP, self._latest)
        self._tracks = {number: track for number, track in self._tracks.items() if track.time_s >= oldest}
        numbers = self._matches(faces)
        numbered = []
        for i, face in enumerate(faces):
            if i not in numbers:
                self._count += 1
            number = numbers.get(i, self._count)
            emotions = self._smoothed(face.emotions, self._tracks.get(number), time_s)
            self._tracks[number] = _Track(face.box, time_s, emotions)
            numbered.append(face._replace(track=number, emotions=emotions))
        self._latest = time_s
        return numbered

    def _matches(self, faces: Sequence[Face]) -> dict[int, int]:
        """The track of each face that continues one, by the face's index: best overlaps first."""
        pairs = [
            (overlap(face.box, track.box), track.time_s, -number, i)
            for i, face in enumerate(faces)
            for number, track in self._tracks.items()
        ]
        matches: dict[int, int] = {}
        for common, _, number, i in sorted(pairs, reverse=True):
            if common >= OVERLAP and i not in matches and -number not in matches.values():
                matches[i] = -number
        return matches

    def _smoothed(self, emotions: dict[str, float], track: _Track | None, time_s: float) -> dict[str, float]:
        if track is None or not self._smooth:
            return emotions
        old = exp(-(time_s - track.time_s) / self._smooth)
        return {name: old * track.emotions[name] + (1 - old) * value for name, value in emotions.items()}


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0..1."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common) if common else 0.0
