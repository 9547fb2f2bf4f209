"""What the page shows, as HTML: rates by step, rates in all, and decodings side by side. All text is escaped."""

from __future__ import annotations

import base64
import difflib
import html
import io
import math
from collections.abc import Sequence

from checkpoint import Rates, Scene
from PIL import Image, ImageChops

BITS_A_NAT = 1 / math.log(2)


def escaped(text: str) -> str:
    """Text for the inside of an element, of which neither HTML nor a template language makes anything else."""
    return html.escape(text).translate({ord(character): f"&#{ord(character)};" for character in "{}$`\\"})


def steps(scene: Scene, chosen: int | None) -> str:
    """A bar a step, its rate, of which the committed part is marked; `chosen` counts from 0, None is all."""
    origin = f'<p class="origin">z is {escaped(scene.origin)}.</p>'
    if scene.rates is None:
        return f"{origin}<p>Nothing was encoded, so there is no rate.</p>"
    tallest = max(*scene.rates.by_step, *scene.rates.committed_by_step, 1e-9)
    both = zip(scene.rates.by_step, scene.rates.committed_by_step, strict=True)
    bars = ""
    for t, (rate, committed) in enumerate(both):
        chosen_class = ' class="chosen"' if chosen in (t, None) else ""
        bars += (
            f'<li data-step="{t + 1}"{chosen_class} '
            f'title="step {t + 1}: rate {rate:.3f} nats, committed {committed:.3f}"><span class="bar">'
            f'<i style="--part:{rate / tallest:.4f}"></i><b style="--part:{committed / tallest:.4f}"></b></span>'
            f'<span class="token">{escaped(scene.tokens[t]) if scene.tokens else t + 1}</span></li>'
        )
    legend = (
        '<p class="legend"><i class="key rate"></i> rate of a step <i class="key committed"></i> its committed part; '
        f"the longest bar is {tallest:.3g} nats. A click on a step chooses it.</p>"
    )
    if scene.picture is None:
        return f'{origin}<ol class="steps">{bars}</ol>{legend}'
    rows = f'<ol class="steps" style="--rows:{len(scene.rates.by_step)}">{bars}</ol>'
    return f'{origin}<div class="picture">{_image(scene.picture, "the image")}{rows}</div>{legend}'


def totals(rates: Rates | None) -> str:
    """Rate, committed rate and slack, in nats and bits."""
    if rates is None:
        return ""
    rows = [("rate", rates.rate), ("of it committed", rates.committed), ("slack", rates.rate - rates.committed)]
    if rates.auxiliary is not None:
        rows.append(("rate, auxiliary prior", rates.auxiliary))
    body = "".join(
        f"<tr><th>{name}</th><td>{nats:.3f}</td><td>{nats * BITS_A_NAT:.3f}</td></tr>" for name, nats in rows
    )
    return f"<table><tr><th></th><th>nats</th><th>bits</th></tr>{body}</table>"


def sentences(before: str, after: str) -> str:
    """Two decodings, with the words marked that z changed."""
    old, new = before.split(), after.split()
    matching = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    marked = "".join(_words(new[j1:j2], what != "equal") for what, _, _, j1, j2 in matching.get_opcodes())
    return _pair(_words(old, False), marked or '<span class="none">(no words)</span>', before == after)


def pictures(before: Image.Image, after: Image.Image) -> str:
    """Two decodings, and where they differ."""
    difference = ImageChops.difference(before, after).convert("L")
    _, most = difference.getextrema()
    shown = ImageChops.invert(difference.point([min(255, v * 255 // max(most, 1)) for v in range(256)]))
    third = f"<figure>{_image(shown, 'where they differ')}<figcaption>where they differ</figcaption></figure>"
    return _pair(_image(before, "before"), _image(after, "after"), before.tobytes() == after.tobytes(), third)


def heading(name: str) -> str:
    """What this is."""
    return (
        f"<h1>z of {escaped(name)}</h1><p>Encode an example or draw a z, move one of its numbers, and see what the "
        "decoder makes of it. Both decodings use the same noise, so only z makes the difference.</p>"
    )


def value(step: int, before: float, after: float, posterior: float | None, prior: float) -> str:
    """What the slider does to z at a step, counted from 1."""
    deviations = ("" if posterior is None else f"posterior {posterior:.3f}, ") + f"prior {prior:.3f}"
    return (
        f'<p class="value">At step {step}: z = {before:.3f} → <b>{after:.3f}</b>. '
        f"One standard deviation: {deviations}.</p>"
    )


def problem(line: str) -> str:
    """Why there is nothing to edit."""
    return f'<p class="problem" role="alert">{escaped(line)}</p>'


def _pair(before: str, after: str, same: bool, more: str = "") -> str:
    note = "after the move: no change" if same else "after the move"
    return (
        f'<div class="pair"><figure class="before"><div>{before}</div><figcaption>before</figcaption></figure>'
        f'<figure class="after"><div>{after}</div><figcaption>{note}</figcaption></figure>{more}</div>'
    )


def _words(words: Sequence[str], changed: bool) -> str:
    inside = ("<mark>{}</mark> " if changed else "{} ").format
    return "".join(inside(escaped(word)) for word in words)


def _image(image: Image.Image, what: str) -> str:
    png = io.BytesIO()
    image.save(png, "png")
    return f'<img alt="{what}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
