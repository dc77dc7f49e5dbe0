"""The extra of a missing package is named, in Python too."""

import sys

import pytest

from fer_jax.core import extras
from fer_jax.faces import detect


def test_a_missing_package_is_answered_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    detect._network.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"^cv2 is not installed: pip install 'fer_jax\[faces\]'") as error:
        detect._network()
    assert error.value.name == "cv2"  # commands print the line


def test_a_package_of_no_extra_keeps_its_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), extras.named():
        import nowhere  # noqa: F401
