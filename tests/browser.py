"""What a real browser is asked about a page."""

from __future__ import annotations

#: The words of drawings that leave their drawing or lie upon another word.
WORDS = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const words = [...svg.querySelectorAll("text")].map(e => [e.textContent, e.getBBox()]);
  const cut = words.filter(([, b]) => b.x < -.5 || b.x + b.width > svg.viewBox.baseVal.width + .5);
  const over = words.filter(([w, a]) => words.some(([v, b]) => w < v && Math.abs(a.y - b.y) < 8
    && a.x < b.x + b.width && b.x < a.x + a.width));
  return [...cut, ...over].map(([word]) => word);
})"""
