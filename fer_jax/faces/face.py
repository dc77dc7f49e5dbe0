"""A face in an image with its emotions."""

from typing import Any, NamedTuple

Box = tuple[int, int, int, int]  # x, y, width, height


class Face(NamedTuple):
    """A face in an image and the probabilities of its emotions."""

    box: Box  # x, y, width, height, in pixels of the image
    emotions: dict[str, float]  # eight probabilities that sum to 1, in the order of `fer_jax.EMOTIONS`
    found: float | None  # the detector's confidence, 0..1; None for a box that was given
    track: int | None = None  # in a film: the same number in all frames of one face, from 1

    @property
    def emotion(self) -> str:
        """The likeliest emotion."""
        return max(self.emotions, key=self.emotions.__getitem__)

    @property
    def probability(self) -> float:
        """The probability of the likeliest emotion, 0..1."""
        return self.emotions[self.emotion]

    def as_dict(self) -> dict[str, Any]:
        """Return the face as json.dumps takes it, with `track` in a film only."""
        return {
            **({} if self.track is None else {"track": self.track}),
            "box": list(self.box),
            "found": self.found,
            "emotion": self.emotion,
            "probability": self.probability,
            "emotions": dict(self.emotions),
        }
