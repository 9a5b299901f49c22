"""The service's /docs: what openapi.json says as one plain page, without scripts and with nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""For the page's header Content-Security-Policy: whatever comes to stand in it, nothing is loaded and nothing runs."""
STYLE = "body{font:1rem/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}td{padding-right:1rem}"


def docs_page(described: dict[str, Any]) -> str:
    """HTML of an OpenAPI description: routes with what they take, and the fields of what they answer."""
    title = escape(f"{described['info']['title']} {described['info']['version']}")
    routes = [
        _route(method, path, facts) for path, methods in described["paths"].items() for method, facts in methods.items()
    ]
    models = described.get("components", {}).get("schemas", {})
    tables = [_model(name, facts) for name, facts in models.items() if "ValidationError" not in name]
    body = "".join([*routes, "<h2>Answers</h2>", *tables])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f'<h1>{title}</h1><p>The same for programs: <a href="openapi.json">openapi.json</a></p>{body}</html>\n'
    )


def _route(method: str, path: str, facts: dict[str, Any]) -> str:
    takes = [f"{each['name']} (in the {each['in']})" for each in facts.get("parameters", ())]
    takes += [f"a body of {kind}" for kind in facts.get("requestBody", {}).get("content", ())]
    return (
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(facts.get('description', ''))}</p>"
        + (f"<p>Takes {escape(', '.join(takes))}.</p>" if takes else "")
    )


def _model(name: str, facts: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{escape(said.get('description', ''))}"
        for field, said in facts.get("properties", {}).items()
    )
    return f"<h3>{escape(name)}</h3><p>{escape(facts.get('description', ''))}</p><table>{rows}</table>"
