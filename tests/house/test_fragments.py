"""Change fragments are named and written as `changes/README.md` says."""

from __future__ import annotations

import re
import tomllib

from tests.house.source import ROOT

FRAGMENT = re.compile(r"\d+\.(added|changed|fixed|removed|security)(\.\d+)?\.md")
FRAGMENTS = sorted(path for path in (ROOT / "changes").iterdir() if path.name != "README.md")


def test_every_fragment_is_named_for_an_issue_and_a_type():
    wrong = [path.name for path in FRAGMENTS if not FRAGMENT.fullmatch(path.name)]

    assert not wrong, wrong


def test_every_fragment_is_whole_sentences():
    wrong = [
        path.name
        for path in FRAGMENTS
        if not re.fullmatch(r"[^\s#][^#]*[.`]\n", path.read_text(encoding="utf-8"), re.DOTALL)
    ]

    assert not wrong, wrong


def test_the_types_are_those_that_the_changelog_is_built_with():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    types = {kind["directory"] for kind in settings["tool"]["towncrier"]["type"]}

    assert types == {"added", "changed", "fixed", "removed", "security"}


def test_pins_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    wrong = [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)]

    assert len(pins) > 20
    assert not wrong, wrong
