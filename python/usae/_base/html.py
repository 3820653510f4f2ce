"""Tables for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML. The first cell of each row is its head."""
    parts = [f"<caption>{html.escape(caption)}</caption>"] if caption else []
    parts.append("<thead><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr></thead>")
    parts.append("<tbody>")
    for first, *others in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        parts.append(f"<tr><th>{html.escape(first)}</th>{cells}</tr>")
    return "<table>" + "".join(parts) + "</tbody></table>"
