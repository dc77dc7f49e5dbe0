"""The image that the webcam's window shows: boxes, bars and the limits."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fer_jax.core.text import counted
from fer_jax.faces.draw import COLOURS, draw
from fer_jax.faces.face import Face
from fer_jax.faces.limits import LIMITS

SIZE = 720, 540  # pixels of the camera's image at most
PANEL, BARS = 250, 3  # the width of the bars' panel; faces with bars at most
LINE, TEXT, FOOTER = 18, 13, 44  # pixels: the height of a bar, of its text, and of the limits
DARK, PALE, LIGHT = "#202020", "#4a4a4a", "#f0f0f0"


def view(image: Image.Image, faces: Sequence[Face]) -> Image.Image:
    """Return an image with the boxes of faces, next to bars of the probabilities of the first faces, above the limits.

    Args:
        image: a camera's image, RGB.
        faces: the faces in it.
    """
    scale = min(SIZE[0] / image.width, SIZE[1] / image.height)
    size = round(image.width * scale), round(image.height * scale)
    scaled = []
    for face in faces:
        x, y, width, height = (round(side * scale) for side in face.box)
        scaled.append(face._replace(box=(x, y, width, height)))
    height = max(size[1], round(BARS * 9.5 * LINE) + LINE)
    canvas = Image.new("RGB", (size[0] + PANEL, height + FOOTER), DARK)
    canvas.paste(draw(image.resize(size, Image.Resampling.BILINEAR), scaled), (0, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT)
    if not faces:
        pen.text((size[0] + 12, 10), "no face", fill=LIGHT, font=font)
    for place, face in enumerate(faces[:BARS]):
        _bars(pen, face, size[0] + 12, 8 + round(place * 9.5 * LINE), font)
    if len(faces) > BARS:
        pen.text(
            (size[0] + 12, round(BARS * 9.5 * LINE)),
            f"and {counted(len(faces) - BARS, 'more face')}",
            fill=LIGHT,
            font=font,
        )
    for number, sentence in enumerate(LIMITS):
        pen.text((8, height + 5 + number * 18), sentence, fill=LIGHT, font=font)
    return canvas


def _bars(
    pen: ImageDraw.ImageDraw, face: Face, left: int, top: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    """The probabilities of a face as bars, 100 pixels for 100 %."""
    pen.text((left, top), f"face {face.track}", fill=LIGHT, font=font)
    for number, (emotion, probability) in enumerate(face.emotions.items(), 1):
        y = top + number * LINE
        pen.text((left, y), emotion, fill=LIGHT, font=font)
        pen.rectangle((left + 82, y + 2, left + 182, y + LINE - 3), fill=PALE)
        pen.rectangle((left + 82, y + 2, left + 82 + round(100 * probability), y + LINE - 3), fill=COLOURS[emotion])
        pen.text((left + 190, y), f"{probability:.0%}", fill=LIGHT, font=font)
