"""One file of HTML that opens anywhere, small: Evidently's page with its scripts compressed.

Evidently embeds 3.5 MB of scripts (plotly and its own) and an icon font in each page. The scripts are kept, as gzip in
base64, and unpacked by the browser (`DecompressionStream`: every browser since 2023); the font is left out, and numbers have
six digits. Nothing is loaded from elsewhere: the page also opens without a network, and inside MLflow.
"""

from __future__ import annotations

import base64
import gzip
import html
import re
from collections.abc import Sequence
from functools import lru_cache

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
FONT = re.compile(r"@font-face\s*\{.*?\}", re.DOTALL)
LONG_NUMBER = re.compile(r"(?<=[\[,: ])-?\d+\.\d{6,}(?:e[-+]?\d+)?(?=[,\]} ])")
# The scripts are the same in every page: packed once a process.
LIBRARY = 1_000_000
UNPACK = """
(async () => {
  const told = document.getElementById("drawing");
  try {
    for (const part of document.querySelectorAll("script[type='application/gzip']")) {
      const bytes = Uint8Array.from(atob(part.textContent), c => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.body.appendChild(script);
    }
    told.remove();
  } catch (error) {
    told.textContent = "The figures need a browser of 2023 or later (" + error + ").";
  }
})();
"""


def small(page: str, notes: Sequence[str]) -> str:
    """The page of Evidently's `get_html_str`, packed, with lines of text above it that need no script."""
    scripts = SCRIPT.findall(page)
    packed = "".join(f'<script type="application/gzip">{_packed(script)}</script>\n' for script in scripts)
    waiting = '<p id="drawing" style="font: 16px sans-serif; margin: 1em">The figures are unpacked …</p>'
    page = FONT.sub("", SCRIPT.sub("", page))
    page = page.replace("</body>", f"{waiting}{packed}<script>{UNPACK}</script></body>", 1)
    return with_notes(page, notes)


def with_notes(page: str, notes: Sequence[str]) -> str:
    """A page with lines of text above it."""
    told = "<br>".join(map(html.escape, notes))
    line = f'<p style="font: 16px sans-serif; margin: 1em">{told}</p>'
    at = page.find("<body")
    at = page.find(">", at) + 1 if at >= 0 else 0
    return page[:at] + line + page[at:]


def unpacked(page: str) -> str:
    """The scripts of a packed page, as the browser sees them."""
    parts = re.findall(r"<script type=\"application/gzip\">(.*?)</script>", page, re.DOTALL)
    return "\n".join(gzip.decompress(base64.b64decode(part)).decode() for part in parts)


def _packed(script: str) -> str:
    if len(script) > LIBRARY:
        return _library(script)
    return _gzip(LONG_NUMBER.sub(lambda found: f"{float(found.group()):.6g}", script))


@lru_cache(maxsize=1)
def _library(script: str) -> str:
    return _gzip(script)


def _gzip(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
