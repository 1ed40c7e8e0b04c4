"""What the demonstration learns of a file, and gathers of many."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from backlane.demo.facts import Facts, Function, read
from backlane.demo.files import find, standard_library
from backlane.demo.index import gather, joined

SOURCE = """\
import os


def walk(tree, depth=0):
    for name in os.listdir(tree):
        if depth and name:
            return [each for each in name if each]
    while tree:
        tree = None


async def rest():
    try:
        pass
    except OSError:
        tree = 1
"""


def test_a_file_tells_its_names_functions_and_complexity(tmp_path):
    path = tmp_path / "walk.py"
    path.write_text(SOURCE)

    facts = read(str(path))

    assert facts.lines == 16
    assert facts.names["tree"] == 4
    assert facts.functions == [Function("walk", 4, 6), Function("rest", 12, 5)]
    # Two functions; for, if, and, the comprehension, while, except.
    assert facts.complexity == 2 + 6
    assert facts.problem is None


@pytest.mark.parametrize(
    "source",
    [
        b"def = 1",
        b"\x00",
        b"# -*- coding: no-such-coding -*-\n",
        b"x = '\xff'\n",
        b"(" * 5_000,
        b"-" * 100_000 + b"1",
    ],
)
def test_a_file_that_cannot_be_parsed_is_a_fact_and_no_error(tmp_path, source):
    path = tmp_path / "bad.py"
    path.write_bytes(source)

    facts = read(str(path))

    assert facts.problem
    assert facts.names == {}


def test_a_file_that_is_gone_is_a_fact_and_no_error(tmp_path):
    assert (read(str(tmp_path / "gone.py")).problem or "").startswith("FileNotFoundError")


def test_facts_of_any_file_stay_far_below_the_limit_of_a_result(tmp_path):
    path = tmp_path / "generated.py"
    path.write_text("".join(f"name_{number}_{'x' * 60} = {number}\n" for number in range(5_000)))

    assert len(msgspec.json.encode(read(str(path)))) < 100_000


def test_all_python_files_below_a_directory_are_found_in_order(tmp_path):
    for name in ("b.py", "a.py", "notes.txt", "inner/c.py", "site-packages/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "folder.py").mkdir()

    found = find(tmp_path)

    names = [str(Path(path).relative_to(tmp_path)) for path in found.paths]
    assert names == ["a.py", "b.py", "inner/c.py", "site-packages/d.py"]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have no such names")
def test_a_file_whose_name_is_not_text_is_left_out_and_told(tmp_path):
    (tmp_path / "good.py").write_text("")
    bad = tmp_path / "bad\udcff.py"
    bad.write_text("")

    found = find(tmp_path)

    assert len(found.paths) == 1
    assert found.skipped == [f"{str(bad)!r}: its name is not text"]


def test_the_standard_library_is_found_without_what_was_installed_beside_it():
    found = standard_library()

    assert any(path.endswith("/ast.py") for path in found.paths)
    assert not any("site-packages" in path for path in found.paths)


def test_facts_are_gathered_into_an_index():
    facts = [
        Facts("a.py", 10, 3, {"x": 2, "y": 1}, [Function("f", 1, 5)]),
        Facts("b.py", 20, 9, {"x": 1}, [Function("g", 7, 12), Function("h", 2, 3)]),
        Facts("c.py", problem="SyntaxError: bad"),
    ]

    parts = [gather([facts[0], None], top=2), gather(facts[1:], top=2)]
    index = joined(parts, top=2)

    assert (index.files, index.lines) == (3, 30)
    assert index.names == [("x", 3), ("y", 1)]
    assert [each.name for each in index.functions] == ["g", "f"]
    assert [each.path for each in index.complex_files] == ["b.py", "a.py"]
    assert [each.path for each in index.problems] == ["c.py"]
