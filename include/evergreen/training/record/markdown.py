"""Text of others as text of Markdown: MLflow draws descriptions, and a name must become no markup in one."""

from __future__ import annotations

import re

# An underline inside a word is none of Markdown's.
_SPECIAL = re.compile(r"([\\`*{}\[\]<>#|~]|(?<!\w)_|_(?!\w))")


def escaped(value: object) -> str:
    """A value as text of Markdown, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def link(label: str, url: str) -> str:
    """A link; an address with a bracket or a blank would end it."""
    return f"[{escaped(label)}]({url.replace(' ', '%20').replace('(', '%28').replace(')', '%29')})"
