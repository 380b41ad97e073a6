"""The report's page: one HTML file with its images inside, readable without a network and without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from vvlm_ray.report.tables import Table

STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin-bottom: .3rem } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem }
p, li { max-width: 48rem } .answer li { margin-bottom: .5rem } .note, figcaption { color: #5a5a5a }
figure { margin: 1rem 0 } figcaption { font-size: .9rem; max-width: 48rem } img { max-width: 100%; height: auto }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-size: .88rem }
caption { text-align: left; color: #5a5a5a; padding-bottom: .3rem }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid #e4e4e4 }
th { font-weight: 600; border-bottom: 1px solid #999 }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left }
"""


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its PNG, what it shows, and what it is called for those who cannot see it."""

    path: Path
    caption: str
    alternative: str


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, a list, pictures and tables (with captions) below it."""

    title: str
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[tuple[str, Table]] = ()
    kind: str = field(default="")


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The HTML. Everything that comes from the records is escaped."""
    body = "\n".join(_section(section) for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    if section.points:
        items = "".join(f"<li>{escape(text)}</li>" for text in section.points)
        parts.append(f"<ul>{items}</ul>")
    parts += [_picture(picture) for picture in section.pictures]
    parts += [_table(caption, table) for caption, table in section.tables]
    attribute = f' class="{escape(section.kind)}"' if section.kind else ""
    return f"<section{attribute}>\n" + "\n".join(parts) + "\n</section>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(picture.alternative)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _table(caption: str, table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.header)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in table.cells)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
