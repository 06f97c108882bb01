"""One self-contained HTML page: text, tables and pictures, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import pandas as pd

from CPS4Core.files import written_aside

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --paper: #fbfaf8; --muted: #6b7280; --line: #d9d7d2;
        --mark: #b4532a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e3; --paper: #16181c; --muted: #9aa0a6; --line: #33373d; --mark: #f0a070; }
}
body { font: 17px/1.6 Georgia, 'Times New Roman', serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 3rem auto; padding: 0 1.2rem; }
h1 { font-size: 2rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { font-size: 1.35rem; margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
table { border-collapse: collapse; font: 14px/1.5 system-ui, sans-serif; margin: 1rem 0; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right;
         font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; border-radius: 6px; }
figcaption, caption, .facts dt { color: var(--muted); font: 14px/1.5 system-ui, sans-serif; }
caption { text-align: left; padding-bottom: .4rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
.facts dd { margin: 0; }
.notice { border-left: 4px solid var(--mark); padding: .2rem 1rem; }
@media print { body { margin: 0; max-width: none; } figure, table { break-inside: avoid; } }
"""


class Report:
    """Collects what the page shows, in order.

    Args:
        title: of the page.
    """

    def __init__(self, title: str):
        self.title = title
        self._parts: list[str] = []

    def section(self, title: str, text: str = "") -> None:
        """Begin a section; blank lines in ``text`` separate paragraphs."""
        self._parts.append(f"<h2>{escape(title)}</h2>")
        self.text(text)

    def text(self, text: str) -> None:
        """Add paragraphs."""
        self._parts += [
            f"<p>{escape(paragraph.strip())}</p>" for paragraph in text.split("\n\n") if paragraph.strip()
        ]

    def notice(self, text: str) -> None:
        """Add a paragraph that must not be overlooked."""
        self._parts.append(f'<p class="notice">{escape(text)}</p>')

    def facts(self, facts: dict[str, str]) -> None:
        """Add short facts, each with its name."""
        rows = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items()
        )
        self._parts.append(f'<dl class="facts">{rows}</dl>')

    def table(self, table: pd.DataFrame, caption: str = "") -> None:
        """Add a table; its index is the first column."""
        head = "".join(f"<th>{escape(str(name))}</th>" for name in ["", *table.columns])
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in (name, *row)) + "</tr>"
            for name, row in zip(table.index, table.itertuples(index=False), strict=True)
        )
        self._parts.append(
            f'<div class="wide"><table><caption>{escape(caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def figure(self, png: bytes, caption: str) -> None:
        """Add a picture."""
        data = base64.b64encode(png).decode()
        self._parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def write(self, path: Path) -> None:
        """Write the page.

        Raises:
            CPS4Error: if the disk is full or the folder cannot be written.
        """
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
            f"<body><h1>{escape(self.title)}</h1>{''.join(self._parts)}</body></html>"
        )
        with written_aside(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
