"""How templates are read: in HTML what others wrote is escaped, and a name that nobody gave is an error and not an empty place."""

from __future__ import annotations

import jinja2


def templates(package: str) -> jinja2.Environment:
    """The templates in the folder `templates` of a package; those of `.html` are escaped, plain text is not."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=jinja2.select_autoescape(("html",), default_for_string=True, default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
