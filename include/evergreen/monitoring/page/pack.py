"""One file of HTML that opens anywhere, small: Evidently's page with its scripts compressed.

Evidently embeds 3.5 MB of scripts (plotly and its own) and an icon font in each page. The scripts are kept, as gzip in
base64, and unpacked by the browser (`DecompressionStream`: every browser since 2023); the font is left out, and numbers have
six digits. Nothing is loaded from elsewhere: the page also opens without a network, and inside MLflow.
"""

from __future__ import annotations

import base64
import gzip
import re
from functools import lru_cache

from evergreen.monitoring.page.head import NUMBERS, Head, numbers, style, text

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
FONT = re.compile(r"@font-face\s*\{.*?\}", re.DOTALL)
LONG_NUMBER = re.compile(r"(?<=[\[,: ])-?\d+\.\d{6,}(?:e[-+]?\d+)?(?=[,\]} ])")
PACKED = re.compile(r'<script type="application/gzip"[^>]*>(.*?)</script>', re.DOTALL)
EMPTY = '<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"><meta name="viewport" content="width=device-width, initial-scale=1.0"></head><body></body></html>'
# The scripts are the same in every page: packed once a process.
LIBRARY = 1_000_000
UNPACK = """
(async () => {
  const told = document.getElementById("drawing");
  try {
    for (const part of document.querySelectorAll("script[type='application/gzip']")) {
      const bytes = Uint8Array.from(atob(part.textContent), c => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const text = await new Response(stream).text();
      if (part.dataset.into) {
        document.getElementById(part.dataset.into).innerHTML = text;
        continue;
      }
      const script = document.createElement("script");
      script.textContent = text;
      document.body.appendChild(script);
    }
    told.remove();
  } catch (error) {
    told.textContent = "The figures need a browser of 2023 or later (" + error + ").";
  }
})();
"""


def page(head: Head, drawn: str | None) -> str:
    """The page of a window.

    Args:
        head: what stands above the figures; all but its table of numbers is read without a script.
        drawn: Evidently's `get_html_str`; None: it drew nothing.
    """
    body = EMPTY if drawn is None else drawn
    packed = [
        f'<script type="application/gzip">{_packed(script)}</script>' for script in SCRIPT.findall(body)
    ]
    if head.rows:
        packed.insert(
            0, f'<script type="application/gzip" data-into="{NUMBERS}">{_gzip(numbers(head))}</script>'
        )
    body = FONT.sub("", SCRIPT.sub("", body))
    waiting = '<p id="drawing">The figures are unpacked …</p>'
    scripts = "\n".join([waiting, *packed, f"<script>{UNPACK}</script>"]) if packed else ""
    begin, head_end, rest = body.partition("</head>")
    opening, body_tag, rest = rest.partition("<body>")
    within, end, after = rest.rpartition("</body>")
    return "".join(
        [begin, style(head), head_end, opening, body_tag, text(head), within, scripts, end, after]
    ).lstrip()


def unpacked(page: str) -> str:
    """What is packed in a page, scripts and the table of numbers, as the browser sees it."""
    return "\n".join(gzip.decompress(base64.b64decode(part)).decode() for part in PACKED.findall(page))


def _packed(script: str) -> str:
    if len(script) > LIBRARY:
        return _library(script)
    return _gzip(LONG_NUMBER.sub(lambda found: f"{float(found.group()):.6g}", script))


@lru_cache(maxsize=1)
def _library(script: str) -> str:
    return _gzip(script, 9)


def _gzip(text: str, level: int = 6) -> str:
    return base64.b64encode(gzip.compress(text.encode(), level, mtime=0)).decode()
