"""Faces drawn on their image: boxes and the likeliest emotions."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fer_jax.data import images
from fer_jax.faces.face import Box, Face
from fer_jax.faces.tracks import overlap

# One colour for each emotion, light enough for dark text.
COLOURS = {
    "neutral": "#c8c8c8",
    "happiness": "#ffd23f",
    "surprise": "#ff9f5a",
    "sadness": "#7fb3ff",
    "anger": "#ff7a7a",
    "disgust": "#8fd17f",
    "fear": "#c9a0ff",
    "contempt": "#e8b0d0",
}


def draw(image: images.Source, faces: Sequence[Face]) -> Image.Image:
    """Return a copy of an image, RGB, with the box of each face and its likeliest emotion.

    A face of a film has its number, `Face.track`, before the emotion. A label lies where it covers no other, if it can.

    Args:
        image: a path, a PIL image or an array, as for `Reader.detect`.
        faces: the faces in it.
    """
    canvas = images.read(image).convert("RGB")
    pen = ImageDraw.Draw(canvas)
    line = max(2, round(min(canvas.size) / 250))
    for face in faces:
        x, y, width, height = face.box
        pen.rectangle((x, y, x + width, y + height), outline=COLOURS[face.emotion], width=line)
    labels: list[Box] = []
    for face in faces:  # after all boxes, whose lines would cross them
        labels.append(_label(pen, face, canvas.size, labels))
    return canvas


def _label(pen: ImageDraw.ImageDraw, face: Face, size: tuple[int, int], labels: Sequence[Box]) -> Box:
    """Draw the text above the box, else inside its top, else below it, and return the label's place."""
    box_x, box_y, width, height = face.box
    font = ImageFont.load_default(max(11, min(width / 7, min(size) / 20)))
    number = "" if face.track is None else f"{face.track}: "
    text = f"{number}{face.emotion} {face.probability:.0%}"
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = round(right - left + 6), round(bottom - top + 6)
    x = max(0, min(box_x, size[0] - wide))
    inside = max(box_y, 0)
    places = [y for y in (box_y - high, inside, box_y + height) if 0 <= y <= size[1] - high] or [inside]
    free = [y for y in places if not any(overlap((x, y, wide, high), label) for label in labels)]
    y = (free or places)[0]
    pen.rectangle((x, y, x + wide, y + high), fill=COLOURS[face.emotion])
    pen.text((x + 3 - left, y + 3 - top), text, fill="black", font=font)
    return x, y, wide, high
