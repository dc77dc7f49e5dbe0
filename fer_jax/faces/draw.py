"""Faces drawn on their image: boxes and the likeliest emotions."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fer_jax.data import images
from fer_jax.faces.face import Face

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

    Args:
        image: a path, a PIL image or an array, as for `Reader.detect`.
        faces: the faces in it.
    """
    canvas = images.read(image).convert("RGB")
    pen = ImageDraw.Draw(canvas)
    line = max(2, round(min(canvas.size) / 250))
    for face in faces:
        x, y, width, height = face.box
        colour = COLOURS[face.emotion]
        pen.rectangle((x, y, x + width, y + height), outline=colour, width=line)
        _label(pen, face, canvas.size, colour)
    return canvas


def _label(pen: ImageDraw.ImageDraw, face: Face, size: tuple[int, int], colour: str) -> None:
    """The text above the box, or inside its top where the image ends."""
    box_x, box_y, width, _ = face.box
    font = ImageFont.load_default(max(11, min(width / 7, min(size) / 20)))
    text = f"{face.emotion} {face.probability:.0%}"
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 6
    x = max(0, min(box_x, size[0] - wide))
    y = box_y - high if box_y >= high else max(box_y, 0)
    pen.rectangle((x, y, x + wide, y + high), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill="black", font=font)
