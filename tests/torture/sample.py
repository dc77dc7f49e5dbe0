"""The drawn sample, for all parts."""

from pathlib import Path

from tests.conftest import run_python


def draw(base: Path) -> Path:
    """Draw the sample in a folder, and return its data folder."""
    csvs = ["-fer", str(base / "fer2013.csv"), "-ferplus", str(base / "fer2013new.csv")]
    for line in (
        ["-m", "fer_generator.synthetic", "-o", str(base), "--train", "1200", "--valid", "300"],
        ["fer_generator/generate_training_data.py", "-d", str(base / "data"), *csvs],
    ):
        run_python(*line).check_returncode()
    return base / "data"
