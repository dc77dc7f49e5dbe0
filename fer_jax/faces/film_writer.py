"""Films written frame by frame, each frame at its own time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from PIL import Image

from fer_jax.core import atomic, extras

CLOCK = 90_000  # ticks a second


@contextmanager
def film_file(path: Path, size: tuple[int, int]) -> Iterator[Callable[[float, Image.Image], None]]:
    """Yield a function that adds the image that is shown from a time on; the film replaces `path` at the end.

    The film is MP4 without sound: H.264, or MPEG-4 where FFmpeg has no encoder for that. An odd width or height loses
    a pixel.

    Raises:
        ModuleNotFoundError: the extra `faces` is not installed.
        OSError: the file cannot be written.
    """
    with extras.named():
        import av  # images are read without it

    even = max(size[0] // 2 * 2, 2), max(size[1] // 2 * 2, 2)
    h264 = "libx264" in av.codecs_available
    latest, step = -1, CLOCK // 30  # in ticks

    def add(time_s: float, image: Image.Image) -> None:
        nonlocal latest, step
        frame = av.VideoFrame.from_image(image if image.size == even else image.crop((0, 0, *even)))
        ticks = max(round(time_s * CLOCK), latest + 1)
        step = ticks - latest if latest >= 0 else step  # the last frame stays as long as the one before it
        latest = ticks
        frame.pts, frame.duration, frame.time_base = ticks, step, Fraction(1, CLOCK)
        container.mux(stream.encode(frame))

    # An open file, since FFmpeg takes only names in UTF-8.
    with (
        atomic.replacing(path) as partial,
        open(partial, "wb") as out_file,
        av.open(out_file, "w", format="mp4") as container,
    ):
        options = {"crf": "21", "preset": "veryfast"} if h264 else {"qscale": "4"}
        options["flags"] = "+frame_duration"
        stream = container.add_stream("libx264" if h264 else "mpeg4", rate=30, options=options)
        stream.width, stream.height = even
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        yield add
        container.mux(stream.encode(None))
