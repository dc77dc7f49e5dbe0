"""The images and films that a command is given: files, and folders of them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fer_jax.core.text import is_web_address, printable
from fer_jax.faces import crop, video


class InputFile(NamedTuple):
    """An image file or a film."""

    path: Path
    place: Path  # below the folder that was given, or the file's name

    @property
    def is_film(self) -> bool:
        """True for a film, by the name's ending."""
        return self.path.suffix.lower() in video.SUFFIXES


class Inputs(NamedTuple):
    """The files behind the paths of a command line."""

    files: list[InputFile]
    problems: list[str]  # a line for each path without a file to read
    ignored: list[Path]  # visible files in folders that are neither images nor films


def find(paths: Sequence[Path], recursive: bool = False) -> Inputs:
    """Return the files of paths: a file itself, and the images and films in a folder, by name.

    Hidden files are left out.

    Args:
        paths: files and folders.
        recursive: look into the sub-folders of folders too.
    """
    inputs = Inputs([], [], [])
    for path in paths:
        if path.is_dir():
            _add_folder(inputs, path, recursive)
        elif path.exists():
            inputs.files.append(InputFile(path, Path(path.name)))
        elif is_web_address(path):
            inputs.problems.append(f"{printable(path)} is a web address: download it first")
        else:
            inputs.problems.append(f"{printable(path)} does not exist")
    return inputs


def _add_folder(inputs: Inputs, folder: Path, recursive: bool) -> None:
    before = len(inputs.files)
    try:
        for path in _visible(folder, recursive):
            file = InputFile(path, path.relative_to(folder))
            if crop.is_image(path) or file.is_film:
                inputs.files.append(file)
            else:
                inputs.ignored.append(path)
    except OSError as error:
        inputs.problems.append(f"{printable(folder)} cannot be read: {error.strerror}")
        return
    if len(inputs.files) == before:
        hint = "" if recursive else " (--recursive looks into its sub-folders)"
        inputs.problems.append(f"no image or film in {printable(folder)}{hint}")


def _visible(folder: Path, recursive: bool) -> Iterator[Path]:
    """The files in a folder by name, then those of its sub-folders."""
    entries = sorted((entry for entry in os.scandir(folder) if not entry.name.startswith(".")), key=lambda e: e.name)
    yield from (Path(entry.path) for entry in entries if entry.is_file())
    if recursive:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):  # a link may lead back to a folder above
                yield from _visible(Path(entry.path), recursive)
