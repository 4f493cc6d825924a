"""The API's description: as JSON, and at /docs as a page that loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.pages.rendering import HEADERS

router = APIRouter(include_in_schema=False)

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:14px ui-monospace,monospace}"
    "pre{overflow-x:auto;padding:.6rem;border:1px solid #8884}h2{margin:2rem 0 .2rem;"
    "overflow-wrap:anywhere}"
)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every route, with its body and the scope that it needs."""
    return Response(request.app.drawn("page", page), headers=HEADERS, media_type="text/html")


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """The description as JSON. Its server is the path prefix behind a proxy, if any."""
    root = request.scope.get("root_path", "").rstrip("/")
    servers = {"servers": [{"url": root}]} if root else {}
    text = request.app.drawn(f"json {root}", lambda found: json.dumps({**found, **servers}))
    return Response(text, media_type="application/json")


def page(description: dict[str, Any]) -> str:
    """The HTML of a description, without scripts or loads."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>srghn API</title>"
        "<meta name=viewport content='width=device-width'><link rel=icon href='data:,'>"
        f"<style>{_STYLE}</style><h1>srghn API</h1>"
        "<p>As JSON: <a href=openapi.json>openapi.json</a>. Back to <a href=./>the start</a>.</p>"
    ]
    for path, methods in sorted(description["paths"].items()):
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation))
    parts.append("<h2>Bodies</h2>")
    for name, schema in description["components"]["schemas"].items():
        parts.append(f"<h3 id='{escape(name)}'>{escape(name)}</h3><pre>{_json(schema)}</pre>")
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    words = escape(operation.get("description") or operation.get("summary") or "")
    said = re.sub(r"`([^`]+)`", r"<code>\1</code>", words)
    needs = "" if {} in operation["security"] else " Needs a token if the server requires one."
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = f"<pre>{_json(body['example'])}</pre>" if "example" in body else ""
    schema = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    link = f"<p>Body: <a href='#{escape(schema)}'>{escape(schema)}</a></p>" if schema else ""
    title = f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    return f"{title}<p>{said}{needs}</p>{link}{example}"


def _json(value: Any) -> str:
    return escape(json.dumps(value, indent=2))
