import pytest

from fer_jax.training.packing import pack
from fer_jax.training.shapes import mismatch, named_leaves


def test_leaves_are_named_by_their_paths_in_the_order_of_the_tree() -> None:
    tree = {"params": {"Dense_1": {"kernel": 1.0, "bias": 2.0}, "Dense_0": {"kernel": 3.0}}, "steps": (4, [5])}
    names = ["params/Dense_0/kernel", "params/Dense_1/bias", "params/Dense_1/kernel", "steps/0", "steps/1/0"]
    assert named_leaves(tree) == dict(zip(names, [3.0, 2.0, 1.0, 4, 5], strict=True))
    assert list(named_leaves(tree)) == names
    assert next(iter(named_leaves(tree, "."))) == "params.Dense_0.kernel"
    assert named_leaves({}) == {}


def test_fields_of_dataclasses_are_named_too() -> None:
    assert list(named_leaves({"params": pack({"w": 1.0})})) == ["params/vectors"]


EXPECTED = {"bias": "[8]", "kernel": "[3, 3, 1, 8]"}


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (EXPECTED, ""),
        ({"kernel": "[3, 3, 1, 8]"}, "bias is missing"),
        ({**EXPECTED, "gain": "[8]"}, "gain is not part of the network"),
        ({**EXPECTED, "kernel": "[3, 3, 1, 9]"}, "kernel is [3, 3, 1, 9], not [3, 3, 1, 8]"),
        ({"kernel": "[1]", "gain": "[8]"}, "bias is missing"),  # the first by name
    ],
)
def test_a_mismatch_names_the_first_array(stored: dict[str, str], problem: str) -> None:
    assert mismatch(stored, EXPECTED) == problem
