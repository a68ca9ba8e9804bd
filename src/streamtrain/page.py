"""Pages for people: one HTML file each, in one style, that needs nothing from elsewhere."""

from html import escape

__all__ = ["page"]

_STYLE = """
:root { --ink: #1c2430; --dim: #66707f; --line: #dfe3e9; --paper: #ffffff; --panel: #f6f7f9;
  --main: #2563a8; --good: #1d7a46; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --dim: #98a2b1; --line: #333b47;
  --paper: #14181e; --panel: #1c222b; --main: #6fb0f2; --good: #58c98a;
  --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -0.01em; }
h2 { margin: 2.6rem 0 0.7rem; font-size: 1.1rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
a { color: var(--main); }
.dim { color: var(--dim); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: 0.75rem;
  margin: 1.5rem 0 0; }
.tile { padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--panel); }
.tile b { display: block; font-size: 1.45rem; font-weight: 600; letter-spacing: -0.01em; }
.tile span { display: block; color: var(--dim); font-size: 0.85rem; line-height: 1.35; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; }
th { color: var(--dim); font-weight: 500; font-size: 0.87rem; vertical-align: bottom; }
td.n, th.n { text-align: right; }
tr.sum td { border-bottom: none; font-weight: 600; }
.bar { display: inline-block; width: 9rem; height: 0.6rem; border-radius: 3px;
  background: var(--line); overflow: hidden; vertical-align: middle; }
.bar i { display: block; height: 100%; background: var(--main); }
.bar.over i { background: var(--bad); }
.good { color: var(--good); } .bad { color: var(--bad); }
svg { width: 100%; height: auto; color: var(--dim); font-size: 12px; }
pre { padding: 0.8rem 1rem; border-radius: 8px; background: var(--panel); overflow-x: auto;
  font-size: 0.87rem; }
"""


def page(title, sections, *, style="", script=""):
    """An HTML page, light or dark as the reader's system is.

    Parameters
    ----------
    title : :class:`str`
        Text, for the browser's tab.
    sections : sequence of :class:`str`
        HTML, from top to bottom. The style knows ``.tiles`` of ``.tile``, ``.scroll`` around wide
        tables, ``td.n`` for numbers, ``.bar``, and ``.dim``, ``.good`` and ``.bad`` text.
    style : :class:`str`
        CSS besides.
    script : :class:`str`
        JavaScript that runs when the page is there.

    Returns :class:`str`.
    """
    behind = f"<script>\n{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + f"\n{behind}</body>\n</html>\n"
    )
