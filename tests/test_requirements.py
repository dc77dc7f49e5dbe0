"""The pinned packages: one version each, with the hashes of its files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pins(name: str) -> dict[str, list[str]]:
    """The hashes of each `package==version ; marker` of a requirements file."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line.split("--hash=") for line in text.splitlines() if not line.startswith("#")]
    return {requirement.strip(): [digest.strip() for digest in hashes] for requirement, *hashes in lines}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_each_package_has_one_version_and_its_hashes(name: str) -> None:
    for requirement, hashes in pins(name).items():
        assert re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==[\w.]+( ; .+)?", requirement)
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes)


def test_both_files_have_the_same_versions() -> None:
    users, developers = pins("requirements.txt"), pins("requirements-dev.txt")
    for requirement, hashes in users.items():
        package = requirement.partition(" ;")[0]
        found = [each for each in developers if each.partition(" ;")[0] == package]
        assert found, requirement
        assert set(developers[found[0]]) == set(hashes)
