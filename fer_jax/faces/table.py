"""Faces as a table."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fer_jax.faces.face import Face

if TYPE_CHECKING:
    import pandas as pd


def table(results: Iterable[Any] | Mapping[Any, Any]) -> "pd.DataFrame":
    """Return a pandas DataFrame with one row for each face.

    The columns are: the image, if there are several; the face's number in it, and its track in a film; x, y, width,
    height, found, emotion and probability; and the probability of each emotion.

    Args:
        results: what `Reader.detect` or `Reader.video` returns, or {name: faces}. The first column is then `image` (a
            number from 0 or a name), `file` or `time_s`.
    """
    # an extra: most users of faces do not need pandas
    import pandas as pd

    from fer_jax.data.labels import EMOTIONS

    rows, key = [], ""
    for number, item in enumerate(results.items() if isinstance(results, Mapping) else results):
        if isinstance(item, Face):
            rows.append(_row(item, number))
            continue
        if isinstance(item, tuple):  # (file, faces) of a folder, or a Frame of a film
            label, faces = item[0], item[1]
            key = "time_s" if isinstance(label, float) else "file"
        else:
            key, label, faces = "image", number, item
        label = label if isinstance(label, int | float) else str(label)
        rows += [{key: label, **_row(face, index)} for index, face in enumerate(faces)]
    columns = ["x", "y", "width", "height", "found", "emotion", "probability", *EMOTIONS]
    first = {"": ["face"], "time_s": ["time_s", "face", "track"]}.get(key, [key, "face"])
    return pd.DataFrame(rows, columns=[*first, *columns])


def _row(face: Face, index: int) -> dict[str, Any]:
    box = dict(zip(("x", "y", "width", "height"), face.box, strict=True))
    values = {"found": face.found, "emotion": face.emotion, "probability": face.probability}
    return {"face": index, "track": face.track, **box, **values, **face.emotions}
