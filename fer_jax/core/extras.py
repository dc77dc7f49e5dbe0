"""The packages outside the base install, and the extra that has each."""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "filelock": "train",
    "pandas": "train",
    "tensorboardX": "train",
    "threadpoolctl": "train",
    "matplotlib": "report",
    "sklearn": "report",
    "optuna": "tune",
    "psycopg": "tune",
    "sqlalchemy": "tune",
    "onnx": "export",
    "flatbuffers": "export",
    "onnxruntime": "onnx",
    "av": "faces",
    "cv2": "faces",
}


def advice(error: ModuleNotFoundError) -> str:
    """Return the line that names the missing package and its extra, "" if no extra has the package."""
    package = (error.name or "").split(".")[0]
    if package not in EXTRAS:
        return ""
    extra = f"[{EXTRAS[package]}]'"
    return f"{package} is not installed: pip install 'fer_jax{extra} (in a clone: pip install -e '.{extra})"


@contextmanager
def named() -> Iterator[None]:
    """Name the extra in the ModuleNotFoundError of an import in the block: users of the Python interface see it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(advice(error) or str(error), name=error.name) from None
