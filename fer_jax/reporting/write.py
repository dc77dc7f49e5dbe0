"""Reports as files in a folder."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.core import atomic
from fer_jax.evaluation.result import Evaluation
from fer_jax.reporting import document, tables
from fer_jax.reporting.document import Block


def write(folder: Path, title: str, blocks: Sequence[Block], facts: Mapping[str, Any]) -> None:
    """Write report.html, report.md, their images and metrics.json (`facts`) to a folder.

    Raises:
        DiskError: the disk is full.
    """
    files = {
        **{f"{block.name}.png": block.png for block in blocks if isinstance(block, document.ImageBlock)},
        "report.md": document.to_markdown(title, blocks).encode(),
        "report.html": document.to_html(title, blocks).encode(),
        "metrics.json": (json.dumps(tables.without_nan(dict(facts)), indent=1) + "\n").encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.writing(folder), tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as scratch:
        for name, content in files.items():
            Path(scratch, name).write_bytes(content)
        for name in files:
            os.replace(Path(scratch, name), folder / name)


def write_evaluation(folder: Path, result: Evaluation, blocks: Sequence[Block], facts: Mapping[str, Any]) -> None:
    """Write a model's report to a folder; metrics.json has `facts` and the metrics."""
    write(
        folder, f"{result.name} on the {tables.SPLITS[result.split]} split", blocks, {**facts, **tables.as_json(result)}
    )
