"""The frame of an HTML page: one style, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape as escape_html
from pathlib import Path
from typing import Generic, TypeVar

from matplotlib.figure import Figure

from caliper.analysis.plots import draw
from caliper.errors import printable
from caliper.utils.files import replacing

Data = TypeVar("Data")

CSS = """
:root { color-scheme: light;
  --ink: #22262b; --soft: #5b636d; --line: #e3e6ea; --tint: #f6f7f9; --blue: #005b91; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.sub, figcaption, caption, small { color: var(--soft); }
.sub { margin-top: .25rem; }
.lead { font-size: 1.1rem; margin-top: 1.25rem; }
.note { border-left: 4px solid #d55e00; background: #fdf3ec; padding: .6rem 1rem; margin: 1rem 0; }
.note ul { margin: .3rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; }
.cards div { background: var(--tint); border-radius: .5rem; padding: .7rem .9rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
small { display: block; font-size: .8rem; font-weight: 400; }
figure { margin: 0 0 1.75rem; }
figcaption { font-size: .875rem; max-width: 46rem; margin-top: .4rem; }
.scroll { overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; }
.videos { display: grid; gap: 1.25rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); }
.videos figure { margin: 0; }
video { display: block; width: 100%; background: #181818; border-radius: .35rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .875rem; padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem 2rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th[scope=row] { font-weight: 400; color: var(--soft); white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
.numbers { font-size: .92rem; }
.numbers th, .numbers td { padding-right: .8rem; }
summary { cursor: pointer; margin-top: 1rem; color: var(--blue); }
pre { background: var(--tint); padding: 1rem; overflow-x: auto; font-size: .8rem; border-radius: .5rem; }
@media (max-width: 40rem) {
  .scroll img { max-width: none; width: 42rem; }
  th, td { padding-right: .75rem; }
  th[scope=row] { white-space: normal; }
}
@media print { details > pre { display: block; } section { break-inside: avoid; } }
"""


def escape(text: str) -> str:
    """Text of a file as HTML: neither markup nor what hides or reorders words gets through; lines stay."""
    return "\n".join(escape_html(printable(line)) for line in text.split("\n"))


def page(title: str, header: str, body: str) -> str:
    """A complete page. `title` is text; `header` and `body` are HTML whose strings are escaped already."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>{header}</header>
{body}</main>
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """A titled part of a page; nothing where its parts, HTML, are empty."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n" if body else ""


@dataclass(frozen=True, slots=True)
class Plot(Generic[Data]):
    """One figure of a page: the name it is saved under, how it is drawn, and what is said about it."""

    name: str
    figure: Callable[[Data], Figure | None]
    caption: str


def image(plot: Plot[Data], data: Data, folder: Path, alt: str | None = None) -> str:
    """A figure with its caption, embedded, and saved as plots/<name>.png; nothing where data are missing.

    Args:
        plot: the figure.
        data: what it is drawn from.
        folder: of the page.
        alt: what is said to those who cannot see it, text; by default what the figure shows.
    """
    fig = draw(plot.figure, data)
    if fig is None:
        return ""
    path = folder / "plots" / f"{plot.name}.png"
    alt = alt or (plot.figure.__doc__ or plot.name).splitlines()[0]
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=160)
    with replacing(path) as partial:
        partial.write_bytes(buffer.getvalue())
    shown = f'<img alt="{escape(alt)}" src="{embed("image/png", buffer.getvalue())}">'
    below = f"<figcaption>{escape(plot.caption)}</figcaption>"
    return f"<figure><div class=scroll tabindex=0>{shown}</div>{below}</figure>"


def clip(path: Path, name: str) -> str:
    """An embedded .mp4 under a name."""
    source, name = embed("video/mp4", path.read_bytes()), escape(name)
    video = f'<video controls loop muted playsinline aria-label="{name}" src="{source}"></video>'
    return f"<figure>{video}<figcaption>{name}</figcaption></figure>"


def bullets(lines: Iterable[str]) -> str:
    """A list of text lines; nothing where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def facts(pairs: Mapping[str, str]) -> str:
    """A table of names and what they are, text; empty ones are left out."""
    rows = "".join(f"<tr><th scope=row>{k}</th><td>{escape(v)}</td></tr>" for k, v in pairs.items() if v)
    return f"<div class=scroll tabindex=0><table class=facts>{rows}</table></div>"


def interval(low: float, high: float) -> str:
    """An interval of shares, in per cent, that does not break across lines."""
    return f"[{low:.0%},\u00a0{high:.0%}]"


def count(number: int) -> str:
    """1 000 000 with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def embed(kind: str, content: bytes) -> str:
    """A file as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
