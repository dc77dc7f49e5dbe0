"""A small, fixed part of `make torture`: odd inputs, and the rule by which a resource has grown."""

from collections import Counter

import pytest

from tests.torture import endurance, input_kinds, inputs
from tests.torture.endurance import Usage


@pytest.mark.slow
@pytest.mark.parametrize("kind", input_kinds.KINDS)
def test_odd_inputs_are_refused_in_one_line_or_read_right(kind: str) -> None:
    lines: list[str] = []
    counts = inputs.run([kind], first=0, count=10, seed=7, keep=None, say=lines.append)
    assert lines == []
    assert sum(counts.outcomes.values()) == 10


def test_a_wrong_value_a_traceback_and_a_long_message_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(folder, change) -> None:
        if change == 0:
            raise input_kinds.WrongError("other pixels")
        if change == 1:
            raise KeyError("a bug")
        if change == 2:
            (folder.parent / "outside").touch()
        print("x" * 301 if change == 3 else "", file=inputs.sys.stderr)

    numbers = iter(range(5))
    kind = input_kinds.Kind(lambda folder: None, lambda rng, folder: next(numbers), wrong)
    monkeypatch.setitem(input_kinds.KINDS, "bad", kind)
    lines: list[str] = []
    counts = inputs.run(["bad"], first=0, count=5, seed=0, keep=None, say=lines.append)
    assert counts.outcomes == Counter({("bad", "wrong"): 5})  # an empty line is no message either
    assert ["other pixels" in lines[0], "a bug" in lines[1], "outside" in lines[2], "xxx" in lines[3]] == [True] * 4


def test_growth_is_told_from_a_steady_state() -> None:
    flat = [Usage(500 + 10 * (epoch % 2), 10 + epoch % 3, 20) for epoch in range(100)]
    assert endurance._growth(flat) == ""
    leak = [each._replace(memory_mb=500 + epoch, files=20 + epoch) for epoch, each in enumerate(flat)]
    assert endurance._growth(leak) == "files, memory_mb"
