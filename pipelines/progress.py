"""Progress for people: a live bar on a terminal, a line every few seconds in a log.

Written to stderr, so that `--json` leaves stdout to the result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Called with (done, note); the note stands behind the bar.
Update = Callable[[int, str], None]

LOG_EVERY_SECONDS = 5.0
#: Where steps are short, a bar that is moved more often costs more than it shows.
REFRESH_SECONDS = 0.1
console = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def bar(title: str, total: int) -> Iterator[Update]:
    """A bar over `total` steps with time left; yields the function that moves it."""
    if not console.is_terminal:
        yield _log_lines(title, total)
        return
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=16),
        TextColumn("{task.completed:>4.0f}/{task.total:.0f}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, note="")

        def update(done: int, note: str = "") -> None:
            progress.update(task, completed=done, note=note)

        yield update


@contextmanager
def share_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar in percent, for work that tells (done, total, note) as it goes."""
    with bar(title, 100) as update:
        yield lambda done, total, note: update(round(100 * done / total), note)


@contextmanager
def spinner(title: str) -> Iterator[None]:
    """For work whose length is not known: a spinner with the time it has taken."""
    if not console.is_terminal:
        console.print(f"  {title} ...", markup=False)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(title, total=None)
        yield


@contextmanager
def patient(title: str) -> Iterator[None]:
    """A spinner for what is mostly quick: in a log, a line once it has taken long."""
    if console.is_terminal:
        with spinner(title):
            yield
        return
    line = f"  {title} ..."
    late = threading.Timer(LOG_EVERY_SECONDS, console.print, (line,), {"markup": False})
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _log_lines(title: str, total: int) -> Update:
    """Lines with the time left, at the pace since the first step that was told.

    What came before it says nothing: loading, compiling, or the steps of an earlier sitting.
    """
    last = time.monotonic()
    first: tuple[float, int] | None = None

    def update(done: int, note: str = "") -> None:
        nonlocal first, last
        now = time.monotonic()
        first = first or (now, done)
        begun, before = first
        if done >= total or now - last >= LOG_EVERY_SECONDS:
            last = now
            pace = (now - begun) / (done - before) if done > before else None
            left = "" if pace is None else f"  {pace * (total - done):.0f} s left"
            console.print(f"  {title}: {done}/{total}  {note}{left}", markup=False)

    return update
