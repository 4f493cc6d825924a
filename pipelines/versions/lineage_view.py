"""A version's ancestors drawn for a terminal: a row a birth, bars for fitness and rate."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from srghn.evolution.ancestry import Ancestor

#: Letters of a bar: the whole fits a terminal of 80.
WIDTH = 12
#: Of a longer chain the founder's end and the last ones are shown.
HEAD, TAIL = 5, 25
#: World and mode -> from where to where its fitness bars go.
Scale = dict[tuple[str, str], tuple[float, float]]
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw(title: str, chain: Sequence[Ancestor], *, whole: bool) -> Table:
    """The chain, founder first. Fitness bars are scaled within one world and mode, never across.

    A gap divides ancestors that lived in different worlds or modes.
    """
    rows = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD
    )
    for name in ("generation", "id"):
        rows.add_column(name, justify="right", no_wrap=True)
    for name in ("fitness at birth", "mutation rate", "mode"):
        rows.add_column(name, no_wrap=True)
    scale = _scale(chain)
    fastest = max(ancestor.rate for ancestor in chain)
    hidden = 0 if whole else max(0, len(chain) - HEAD - TAIL)
    for index, ancestor in enumerate(chain):
        if hidden and HEAD <= index < HEAD + hidden:
            if index == HEAD:
                rows.add_row("…", "", f"{hidden} more: --all", "", "")
            continue
        if index and _place(ancestor) != _place(chain[index - 1]):
            rows.add_section()
        rows.add_row(*_row(ancestor, scale, fastest))
    return rows


def bar(share: float) -> str:
    """A bar `WIDTH` letters wide, filled to `share` in eighths of a letter."""
    eighths = round(min(max(share, 0.0), 1.0) * WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(WIDTH)


def _row(ancestor: Ancestor, scale: Scale, most: float) -> tuple[str, ...]:
    low, high = scale.get(_place(ancestor), (0.0, 0.0))
    fitness = "-"
    if ancestor.fitness is not None:
        share = (ancestor.fitness - low) / (high - low) if high > low else 1.0
        fitness = f"{bar(share)} {ancestor.fitness:.1f}"
    return (
        str(ancestor.generation),
        str(ancestor.id),
        fitness,
        f"{bar(ancestor.rate / most if most else 0.0)} {ancestor.rate:.4f}",
        ancestor.mode,
    )


def _place(ancestor: Ancestor) -> tuple[str, str]:
    return ancestor.fingerprint, ancestor.mode


def _scale(chain: Sequence[Ancestor]) -> Scale:
    """Bars go from 0, or from the worst fitness below it, to the best."""
    found: Scale = {}
    for ancestor in chain:
        if ancestor.fitness is not None:
            low, high = found.get(_place(ancestor), (0.0, ancestor.fitness))
            found[_place(ancestor)] = min(low, ancestor.fitness), max(high, ancestor.fitness)
    return found
