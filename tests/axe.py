"""axe-core in a page that a browser shows: what keeps people out who see little, or use a keyboard or a screen reader."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

from chromium import Browser

# The script alone; the package's own way to run it needs a browser of Playwright's.
SCRIPT = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
GRAVE = ("serious", "critical")


def grave(page: Browser) -> list[str]:
    """What axe finds that is serious or critical, in all that the page can unfold: rule, what is wrong, and where."""
    page.run(f"{SCRIPT.read_text(encoding='utf-8')}; true")
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = page.run(
        "axe.run(document, {resultTypes: ['violations'], preload: false}).then(all => ({passed: all.passes.length, violations:"
        " all.violations.map(v => [v.impact, v.id, v.help, v.nodes.map(n => n.target.join(' ') + ': ' + (n.failureSummary || ''))])}))"
    )
    assert found["passed"] > 10, "axe has looked at the page"
    return [
        f"{rule}: {what}: {'; '.join(where)}"
        for impact, rule, what, where in found["violations"]
        if impact in GRAVE
    ]
