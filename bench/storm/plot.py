"""`python -m bench.storm.plot FILE.svg`: the storm of a crowd, drawn for the documentation.

Needs matplotlib: `pip install --group plot`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.storm.figures import SEED
from bench.storm.policy import DECORRELATED, FIXED, FULL, NAIVE, SLOTS, TICKETS
from bench.storm.scenes import CROWD
from bench.storm.world import World

# Grey and dashes for what others do, colour for what is done here; told apart without colour too.
STYLES = (
    (FIXED, {"color": "#9a9a9a", "linestyle": ":"}),
    (NAIVE, {"color": "#7a7a7a", "linestyle": "--"}),
    (DECORRELATED, {"color": "#b58900", "linestyle": "-."}),
    (FULL, {"color": "#cb4b16", "linestyle": "-"}),
    (SLOTS, {"color": "#268bd2", "linestyle": "--"}),
    (TICKETS, {"color": "#00457c", "linestyle": "-", "linewidth": 2.2}),
)
SHOWN = 160  # seconds
MEAN = 5  # seconds: single ones would hide each other's lines


def draw(path: Path) -> None:
    """Draw attempts per second over time, one line a policy."""
    plots: Any = import_module("matplotlib.pyplot")
    # Text stays text, and nothing in the file tells when or where it was drawn.
    plots.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "storm", "font.size": 11})
    figure, axes = plots.subplots(figsize=(9, 4.5))
    for policy, style in STYLES:
        bins = World(CROWD, policy, SEED).told().per_second()
        means = [sum(bins[at : at + MEAN]) / MEAN for at in range(0, SHOWN, MEAN)]
        axes.step(
            range(0, SHOWN + 1, MEAN), [*means, means[-1]], where="post", label=policy.name, **style
        )
    axes.axhline(100, color="#444444", linewidth=0.8)
    axes.text(SHOWN, 104, "what the queue takes", ha="right", va="bottom", fontsize=9)
    axes.set(yscale="log", xlim=(0, SHOWN), ylim=(50, 6_000))
    axes.set_yticks([100, 300, 1_000, 3_000], ["100", "300", "1,000", "3,000"])
    axes.set_xlabel("seconds after 5,000 callers came at once")
    axes.set_ylabel("attempts per second")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
