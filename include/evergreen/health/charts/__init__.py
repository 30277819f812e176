"""Pictures of the health of models as SVG: pure functions of what was read, with title and description for those who do not see them.

Colours are classes, which the page's style sheet gives their light and dark values.
"""
