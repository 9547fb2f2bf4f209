"""`delta-vae explore`: what a model's latents do, as one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

from delta_vae_lab.explorer.gather import gather
from delta_vae_lab.explorer.medium import medium_of
from delta_vae_lab.explorer.page import is_ours, render
from delta_vae_lab.saved_model import load_heldout, load_model

MOST_EXAMPLES = 200
MEASURED = 512  # held-out examples that the estimates are of: those of a few dozen would be little but their errors


def run_explore(model: str, data: str, out: Path, *, examples: int = 24, seed: int = 0) -> None:
    """Write the page of a saved model on held-out data to `out`, and say how large it is."""
    if not 2 <= examples <= MOST_EXAMPLES:
        raise ValueError(f"examples={examples}: the page shows 2 to {MOST_EXAMPLES}; choose as many")
    _check_target(out)
    saved = load_model(model)
    if saved.prior is None:
        raise ValueError(f"{model}: has no latents (latent_dim=0); explore a model with a prior and an encoder")
    heldout = load_heldout(model, saved, data, examples=max(examples, MEASURED))
    about = {"model": model, "data": heldout.name}
    page = render(
        gather(saved, heldout.batches, medium_of(model, saved, seed), examples=examples, about=about, seed=seed)
    )
    partial = out.with_name(f"{out.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(out)
    print(f"Written to {out}, {out.stat().st_size / 1e3:,.0f} kB: open it in a browser.")


def _check_target(out: Path) -> None:
    """Raise `ValueError` unless a page may be written there; before a model is loaded for it."""
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; give the name of a file, such as {out / 'explorer.html'}")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}; make it, or give another --out")
    if out.exists() and not is_ours(out):
        raise ValueError(f"{out}: exists and was not written by explore; move it away, or give another --out")
