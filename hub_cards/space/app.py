"""A Space for one published delta-VAE: see what a sentence or an image costs, move z, and watch the decoding change.

Set MODEL (user/my-model on the Hub, or a folder) and, if it is not the main branch, REVISION.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawing
import gradio as gr
from checkpoint import ImageCheckpoint, Move, Scene, TextCheckpoint, load

WIDEST = 5  # standard deviations to either side
LARGEST_SEED = 2**31 - 1
POSTERIOR, PRIOR = UNITS = "posterior", "prior"
SOURCES = {"auxiliary": "the auxiliary prior", "prior": "the prior"}
CSS = Path(__file__).with_name("space.css")
# Fonts of the visitor's own, so that the page asks no other host for any.
THEME = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
CLICKED = """element.addEventListener('click', event => {
    const step = event.target.closest('[data-step]');
    if (step) trigger('select', {index: 0, value: Number(step.dataset.step)});
});"""


class Editor:
    """What the controls do. On the page steps and dimensions are counted from 1."""

    def __init__(self, checkpoint: TextCheckpoint | ImageCheckpoint) -> None:
        self.checkpoint = checkpoint

    def encode(self, given: Any, seed: int | None, temperature: float) -> tuple[Any, ...]:
        """A sentence or an image, to be edited from its posterior mean."""
        return self._begin(self.checkpoint.encode(given), POSTERIOR, seed, temperature)

    def draw(self, source: str, seed: int | None, temperature: float) -> tuple[Any, ...]:
        """A z of a prior, to be edited as it is."""
        return self._begin(self.checkpoint.draw(source, _whole(seed)), PRIOR, seed, temperature)

    def move(self, scene: Scene | None, *controls: Any) -> tuple[str, str, str]:
        """The bars, the value of z, and the decodings before and after the move that the controls describe."""
        scene, move, seed, temperature = _present(scene), *_read(*controls)
        moved = self.checkpoint.move(scene, move)
        before, after = (self.checkpoint.decode(z, seed, temperature) for z in (scene.latents, moved))
        at = (move.step or 0, move.dimension)
        posterior = None if scene.posterior_scale is None else float(scene.posterior_scale[at])
        prior = float(self.checkpoint.prior_scale[move.dimension])
        value = drawing.value(at[0] + 1, float(scene.latents[at]), float(moved[at]), posterior, prior)
        return drawing.steps(scene, move.step), value, self._shown(before, after)

    def keep(self, scene: Scene | None, *controls: Any) -> tuple[Any, ...]:
        """Go on from the moved z; the slider returns to the middle."""
        scene, move, seed, temperature = _present(scene), *_read(*controls)
        origin = scene.origin.removesuffix(", moved") + ", moved"
        kept = replace(scene, latents=self.checkpoint.move(scene, move), origin=origin)
        decoded = self.checkpoint.decode(kept.latents, seed, temperature)
        return kept, 0, drawing.steps(kept, move.step), self._shown(decoded, decoded)

    def decoding(self, scene: Scene | None, *controls: Any) -> Any:
        """The decoding after the move, as a sentence or an image that may be encoded in its turn."""
        scene, move, seed, temperature = _present(scene), *_read(*controls)
        decoded = self.checkpoint.decode(self.checkpoint.move(scene, move), seed, temperature)
        return decoded if isinstance(self.checkpoint, TextCheckpoint) else self.checkpoint.picture(decoded)

    def _begin(self, scene: Scene, unit: str, seed: int | None, temperature: float) -> tuple[Any, ...]:
        """A new scene, and every control where it begins."""
        bars, value, decodings = self.move(scene, 1, 1, False, 0, unit, seed, temperature)
        step = gr.update(value=1, maximum=len(scene.latents))
        return scene, step, 0, unit, bars, drawing.totals(scene.rates), value, decodings

    def _shown(self, before: Any, after: Any) -> str:
        if isinstance(self.checkpoint, TextCheckpoint):
            return drawing.sentences(before, after)
        return drawing.pictures(self.checkpoint.picture(before), self.checkpoint.picture(after))


def page_of(checkpoint: TextCheckpoint | ImageCheckpoint) -> gr.Blocks:
    """The page of a model. What takes the model is done one at a time, and of a slider's positions the last counts."""
    editor, text = Editor(checkpoint), isinstance(checkpoint, TextCheckpoint)
    with gr.Blocks(title=f"z of {checkpoint.name}", analytics_enabled=False) as page:
        gr.HTML(drawing.heading(checkpoint.name))
        scene = gr.State(None, time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=2):
                given: Any = (
                    gr.Textbox(label="Sentence", lines=2, max_lines=6, submit_btn=False)
                    if text
                    else gr.Image(
                        label="Image",
                        type="pil",
                        image_mode=None,  # as it was uploaded: the processor converts, or says why not
                        format="png",
                        sources=["upload", "clipboard"],
                        height=220,
                        buttons=[],
                    )
                )
                encode = gr.Button("Encode", variant="primary")
                sources = [(SOURCES[source], source) for source in checkpoint.sources]
                source = gr.Radio(sources, value=checkpoint.sources[0], label="Or draw z from")
                draw = gr.Button("Draw again, at the next seed")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=100)
                    temperature = gr.Slider(
                        0, 1.5, checkpoint.temperature, step=0.05, label="Temperature", info="0: the most probable"
                    )
            with gr.Column(scale=3):
                bars = gr.HTML(js_on_load=CLICKED, elem_id="bars")
                totals = gr.HTML(elem_id="totals")
        with gr.Row():
            step = gr.Slider(1, checkpoint.steps, 1, step=1, label="Step t")
            several = checkpoint.latent_dim > 1  # a slider of one position is none
            dimension = gr.Slider(1, max(2, checkpoint.latent_dim), 1, step=1, label="Dimension d", visible=several)
            unit = gr.Radio(UNITS, value=PRIOR, label="In standard deviations of the")
        everywhere = gr.Checkbox(label="Move this dimension at every step")
        amount = gr.Slider(-WIDEST, WIDEST, 0, step=0.1, label="Move z by, in standard deviations")
        value = gr.HTML()
        decodings = gr.HTML(elem_id="decodings", elem_classes=[checkpoint.kind])
        with gr.Row():
            keep = gr.Button("Keep this move, and go on from it")
            again = gr.Button("Encode what came out")

        chance, controls = [seed, temperature], [scene, step, dimension, everywhere, amount, unit, seed, temperature]
        begun = [scene, step, amount, unit, bars, totals, value, decodings]
        turn: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": decodings}
        private: dict[str, Any] = {**turn, "api_visibility": "private"}
        encodes = [encode.click, given.submit] if text else [encode.click, given.upload]
        gr.on(encodes, told(editor.encode), [given, *chance], begun, api_name="encode", **turn)
        moves = [control.input for control in (step, dimension, everywhere, amount, unit, seed, temperature)]
        shown = [bars, value, decodings]
        gr.on(moves, told(editor.move), controls, shown, api_name="move", trigger_mode="always_last", **turn)
        bars.select(_clicked, None, step, api_visibility="private").then(
            told(editor.move), controls, shown, trigger_mode="always_last", **private
        )
        keep.click(told(editor.keep), controls, [scene, amount, bars, decodings], api_name="keep", **turn)
        again.click(told(editor.decoding), controls, given, api_name="decoding", **turn).success(
            told(editor.encode), [given, *chance], begun, **private
        )
        draw.click(_next_seed, seed, seed, api_visibility="private").then(
            told(editor.draw), [source, *chance], begun, api_name="draw", **turn
        )
        page.load(told(editor.draw), [source, *chance], begun, **private)
    return page


def page_of_problem(line: str) -> gr.Blocks:
    """One line that says why there is no model."""
    with gr.Blocks(title="No model", analytics_enabled=False) as page:
        gr.HTML(drawing.problem(line))
    return page


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, whose `ValueError`s the person at the page reads."""

    @functools.wraps(handler)
    def tell(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return tell


def main() -> None:
    """Serve the page, on the port and address that the platform gives to Gradio."""
    try:
        page = page_of(load(os.environ.get("MODEL", "").strip(), os.environ.get("REVISION", "").strip() or None))
    except ValueError as error:
        print(error)
        page = page_of_problem(str(error))
    page.launch(
        theme=THEME,
        css_paths=CSS,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=["api", "settings"],
        max_file_size="10mb",
    )


def _read(
    step: float, dimension: float, everywhere: bool, amount: float, unit: str, seed: int | None, temperature: float
) -> tuple[Move, int, float]:
    """The controls of a move."""
    return Move(None if everywhere else int(step) - 1, int(dimension) - 1, amount, unit), _whole(seed), temperature


def _present(scene: Scene | None) -> Scene:
    if scene is None:
        raise ValueError("there is no z yet, or it was forgotten after an hour: encode something, or draw")
    return scene


def _whole(seed: int | None) -> int:
    if seed is None:
        raise ValueError("the seed is empty: give a whole number, such as 0")
    return seed


def _next_seed(seed: int | None) -> int:
    return 0 if seed is None else (seed + 1) % LARGEST_SEED


def _clicked(event: gr.SelectData) -> int:
    return int(event.value)


if __name__ == "__main__":
    main()
