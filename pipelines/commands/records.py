"""Tables that a terminal shows as tables, and a pipe gets as one record a line."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving.registry.texts import written_out


def safe(text: str) -> str:
    """A text with its control characters written out, for it may be another's: a reason, a name.

    Tabs and line breaks stay; no other one may steer the terminal that shows it.
    """
    return written_out(text).replace("\0", "\\x00")


class Records(Table):
    """A table that remembers its rows. A cell that is a plain string is shown as it is."""

    def __init__(self, title: str, *columns: str) -> None:
        super().__init__(title=title, title_justify="left", title_style="bold", header_style="dim")
        self.records: list[list[str]] = []
        for column in columns:
            self.add_column(column, overflow="fold")

    def add_row(self, *cells: Any, **how: Any) -> None:
        texts = [cell if isinstance(cell, Text) else Text(safe(str(cell))) for cell in cells]
        self.records.append([" ".join(text.plain.split()) for text in texts])
        super().add_row(*texts, **how)


def write(console: Console, *objects: Any, **how: Any) -> None:
    """Print for a person where there is a terminal, else lines that nothing wrapped."""
    objects = tuple(safe(each) if isinstance(each, str) else each for each in objects)
    if console.is_terminal:
        console.print(*objects, **how)
        return
    for each in objects:
        if isinstance(each, Records):
            for record in each.records:
                console.file.write("\t".join(record) + "\n")
        else:
            console.print(each, **{**how, "soft_wrap": True})
