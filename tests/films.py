"""Films that tests make: of plain images or drawn faces, with frames at any times, turned like a phone's."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fer_generator.faces import draw_faces
from fer_jax.data.labels import EMOTIONS

UNIT = 1 << 16
# The matrices of an MP4 file's track header for a film that a player turns clockwise.
MATRICES = {
    0: (UNIT, 0, 0, 0, UNIT, 0, 0, 0, 1 << 30),
    90: (0, UNIT, 0, -UNIT, 0, 0, 0, 0, 1 << 30),
    180: (-UNIT, 0, 0, 0, -UNIT, 0, 0, 0, 1 << 30),
    270: (0, -UNIT, 0, UNIT, 0, 0, 0, 0, 1 << 30),
}


def write(
    path: Path, images: Sequence[Image.Image], times: Sequence[float], turn: int = 0, codec: str = "mpeg4"
) -> Path:
    """Write a film whose frames are shown from the times on, in seconds; its name's ending chooses the format."""
    clock = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qmin": "2", "qmax": "3"})
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = clock
        for image, time_s in zip(images, times, strict=True):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = round(1000 * time_s), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if turn:
        content = path.read_bytes()
        upright = struct.pack(">9i", *MATRICES[0])
        start = content.index(upright, content.index(b"tkhd"))
        path.write_bytes(content[:start] + struct.pack(">9i", *MATRICES[turn]) + content[start + 36 :])
    return path


def drawn(emotion: str, side: int = 112, seed: int = 13) -> Image.Image:
    """A drawn person with an expression, in a larger grey image; the seed chooses the person.

    The network `base` reads the expressions of the default person right, but for disgust, fear and contempt.
    """
    pixels = draw_faces(np.random.default_rng(seed), np.array([EMOTIONS.index(emotion)]), np.ones(1))[0]
    image = Image.new("RGB", (side * 2, side * 3 // 2), (90, 90, 90))
    image.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS), (side // 2, side // 4))
    return image
