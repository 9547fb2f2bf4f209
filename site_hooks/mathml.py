"""Mathematics of the site, `$...$` and `$$...$$`, as MathML: a page needs no script to show it."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex writes with `generic: true`.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)
# Named functions come as operators, with space on both sides, or as words, with none before their argument.
_OPERATOR = re.compile(r"<mo>([A-Za-z]+)</mo>")
_WORD_BEFORE_ARGUMENT = re.compile(r"<mi>(ln|det)</mi>(?=<(?!mo))")


def on_page_content(content: str, **_: Any) -> str:
    """A page's HTML with every formula as `<math>`; displayed ones in a box of their own that scrolls when narrow."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    displayed = found[1] == "div"
    math = convert(html.unescape(found[2]).strip(), display="block" if displayed else "inline")
    math = _OPERATOR.sub(r'<mi mathvariant="normal">\1</mi>', math)
    math = _WORD_BEFORE_ARGUMENT.sub(r'<mi>\1</mi><mspace width="0.17em" />', math)
    return f'<div class="formula" tabindex="0">{math}</div>' if displayed else math
