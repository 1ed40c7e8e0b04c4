"""`python -m bench`: measure, and print every figure beside its bar.

Exit status 0: all bars hold; 1: one does not, or measured nothing.
"""

from __future__ import annotations

import argparse
import compileall
import sys
from pathlib import Path

import backlane
from bench.catalogue import CATALOGUE, measured
from bench.machine import machine
from bench.prove import prove
from bench.table import markdown, table


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"which: {', '.join(CATALOGUE)} (all without a name), or `prove`: these, "
        "the fault campaign and the durability proofs, at full size",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="full sizes (about 15 minutes)")
    size.add_argument("--quick", action="store_true", help="small sizes (a minute); the default")
    parser.add_argument("--markdown", action="store_true", help="print a table of Markdown")
    options = parser.parse_args()
    # As an installer does for the peers: no figure is to hold the compiling of our source.
    compileall.compile_dir(Path(backlane.__file__).parent, quiet=1)
    if options.names == ["prove"]:
        return prove(full=not options.quick)
    if unknown := [name for name in options.names if name not in CATALOGUE]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(CATALOGUE)}")
    print(machine(), flush=True)
    names = options.names or list(CATALOGUE)
    figures = measured(
        names, full=options.full, tell=lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(markdown(figures) if options.markdown else table(figures))
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
