"""The promotion report: one page to decide from, then the evidence.

`render` is a function of the evidence alone. The page is whole in itself: styles and drawings are
inline, nothing is fetched, and there is no script.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from regression_suite.report import origins, views
from regression_suite.report.plots import SIGNS, STYLES
from regression_suite.report.svg import label
from srghn.inference.verdict import Verdict, decide

if TYPE_CHECKING:
    from regression_suite.evidence import Evidence

_TEMPLATES = Path(__file__).parent / "templates"


def render(evidence: Evidence, verdict: Verdict | None, content_digest: str) -> str:
    """The page; without a verdict, that of two policies compared.

    `content_digest` is the SHA-256 of the file that holds its numbers.
    """
    checks = () if verdict is None else verdict.checks
    return _template().render(
        evidence=evidence,
        verdict=verdict,
        bound=None if verdict is None else decide(evidence.checks)[1],
        checks=sorted(checks, key=lambda c: c.outcome == "passed" or not c.binding),
        content_digest=content_digest,
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        figures=views.figures(evidence),
        budgets=views.budgets(evidence),
        outside=views.outside(evidence),
        replay=views.replay_command(evidence),
        identity=views.identity(evidence, verdict, content_digest),
        ancestors=None if verdict is None else origins.ancestors(evidence),
        primary=views.primary(evidence),
        heat=views.heat(evidence),
        evolution=origins.evolution(evidence),
        actions=views.actions(evidence),
        events=origins.events(evidence),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda digest: f"{digest[:12]}…" if digest else "—"
    environment.filters["number"] = label
    environment.globals.update(signs=SIGNS, styles=STYLES)
    return environment.get_template("report.html.j2")
