"""Great Expectations' own page of what it checked, made to stand alone.

Its renderer writes pages that load styles, scripts, a font of icons and a logo from elsewhere, and
hold random names and the time. Only its sections are taken, without any of that: what is left is
one page that asks for nothing, the same bytes for the same results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:0 auto;padding:16px}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid #8886;"
    "vertical-align:top;overflow-wrap:anywhere}th{overflow-wrap:normal}section{margin-bottom:40px}"
    "section>div{overflow-x:auto}"
)
#: What loads something, or leads away.
_FOREIGN = re.compile(
    r"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*>|<img\b[^>]*>"
    r"|<input\b[^>]*>|<label\b.*?</label>|<svg\b.*?</svg>|<nav\b.*?</nav>|<button\b.*?</button>|<form\b.*?</form>|<!--.*?-->",
    re.DOTALL,
)
_LINK = re.compile(r"</?a\b[^>]*>")
#: What opens on a click of a script, and names that each section has again.
_IDLE = re.compile(r"<p [^>]*>\s*Show more info\.\.\.\s*</p>")
_NAMED = re.compile(r"(<[a-z][^<>]*?)\sid=(?:\"[^\"]*\"|[^\s>]+)")
_ICON = re.compile(r"<i\b[^>]*\bfa-([a-z-]+)[^>]*>\s*</i>")
#: The icons that say something, and what is said to those who do not see them.
_SIGNS = {
    "check-circle": ("✓", "passed"),
    "times": ("✕", "failed"),
    "exclamation-triangle": ("!", "error"),
}
_RANDOM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{8}T\d{6}\.\d+Z")


def page(results: Sequence[tuple[str, Any]]) -> str:
    """One page of validation results, each with the name of its table."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaSectionView

    renderer: Any = ValidationResultsPageRenderer()
    view: Any = DefaultJinjaSectionView()
    parts = []
    for name, result in results:
        sections = renderer.render(result).to_json_dict()["sections"]
        numbered = ({"section": each, "section_loop": {"index": 1}} for each in sections)
        text = "".join(map(view.render, numbered))
        parts.append(f"<section><h2>{escape(name)}</h2><div>{alone(text)}</div></section>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}Data docs</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
        f"<h1>Data docs: what Great Expectations checked</h1>{''.join(parts)}</body></html>\n"
    )


def alone(text: str) -> str:
    """Sections without what loads something, leads away, or is new every time."""
    kept = _NAMED.sub(r"\1", _IDLE.sub("", _LINK.sub("", _FOREIGN.sub("", text))))
    inner = _ICON.sub(_sign, kept)
    still = _TIME.sub("", _RANDOM.sub("", inner))
    return "\n".join(line.strip() for line in still.splitlines() if line.strip())


def _sign(icon: re.Match[str]) -> str:
    sign, said = _SIGNS.get(icon.group(1), ("", ""))
    return f'<span role="img" aria-label="{said}">{sign}</span>' if sign else ""
