"""The table: figures as fixed-width text, readable in a log and in a note."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figure import Figure

HEAD = ("", "figure", "measured", "beside", "ratio", "bar")


def table(figures: Sequence[Figure]) -> str:
    """Return one line a figure, then the notes."""
    rows = [
        ("pass" if f.holds else "FAIL", f.name, f.measured, f.beside, f.ratio, f.bar)
        for f in figures
    ]
    # What is told in words, without a bar, stands last in its line and may be long.
    measured = [row for row in rows if row[-1]]
    widths = [max(map(len, column)) for column in zip(HEAD, *measured, strict=True)]
    widths[1] = max(len(row[1]) for row in (HEAD, *rows))
    lines = [_line(HEAD, widths), _line(tuple("-" * width for width in widths), widths)]
    lines += [_line(row, widths) for row in rows]
    notes = [f"  {f.name}: {f.note}" for f in figures if f.note]
    return "\n".join([*lines, *(["", "notes", *notes] if notes else [])])


def markdown(figures: Sequence[Figure]) -> str:
    """Return the same as a table of Markdown, for `docs/performance.md`."""
    head = ("figure", "measured", "beside", "ratio", "bar", "holds")
    rows = [
        (f.name, f.measured, f.beside, f.ratio, f.bar, "yes" if f.holds else "no") for f in figures
    ]
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
