"""A model card as a page of its own and as Markdown; what others wrote becomes no markup in either."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache

import jinja2
from markupsafe import Markup

from evergreen.templates import templates
from evergreen.training.card.content import Card
from evergreen.training.figures.figures import FOLDER, TITLES
from evergreen.training.record.description import CARD_FILE
from evergreen.training.record.markdown import escaped, link

PAGE_FILE, TEXT_FILE = CARD_FILE, "model_card.md"


def page(card: Card, pictures: Mapping[str, bytes]) -> str:
    """The card as a page without scripts, with the figures in it; in the colours that the reader's system asks for."""
    return _templates().get_template("card.html").render(card=card, pictures=pictures, titles=TITLES)


def text(card: Card, pictures: Mapping[str, bytes]) -> str:
    """The card as Markdown; the figures are those beside it."""
    return (
        _templates()
        .get_template("card.txt")
        .render(card=card, pictures=pictures, titles=TITLES, folder=FOLDER)
    )


@cache
def _templates() -> jinja2.Environment:
    environment = templates("evergreen.training.card")
    environment.filters["md"] = escaped
    environment.globals["link"] = link
    environment.filters["data"] = _data
    return environment


def _data(picture: bytes) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(picture).decode()
