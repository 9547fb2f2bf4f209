"""Many images of one z: what decodings of one z share is what z tells the decoder.

Grids of z from the auxiliary prior; and, of z ~ q(z | x) of held-out x, which share of the variance of a pixel z
decides, and how often a decoding is taken for an image of x's class by a linear classifier of pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from delta_vae import DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.data.labels import UNLABELLED, labelled_images
from delta_vae_lab.experiments.image_models import HIGH, LOW, ORDINARY, delta_vae
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import about, by_model, cell, errors, over_seeds, text_table
from delta_vae_lab.experiments.trials import Preset, Trial, image_preset, run_trials, shared, trials
from delta_vae_lab.figures import STYLE
from delta_vae_lab.image_run import image_task
from delta_vae_lab.randomness import generator
from delta_vae_lab.subject import evaluating

TITLE = "Many images of one z"
TAKES = ("data", "jobs")
SCALES = ("smoke", "small", "paper")

COPIES = 8  # decodings of a z
_EXAMPLES = {"smoke": 4, "small": 48, "paper": 200}  # held-out images whose z is decoded
_ROWS = 6  # of a grid


def run(request: Request) -> dict[str, Any]:
    """Train the models at every seed, and decode."""
    preset = image_preset(request)
    models = {**delta_vae(*LOW[preset.family]), **ORDINARY}
    if preset.family == "digits":  # of larger images a costly one
        models = {**delta_vae(*HIGH[preset.family]), **models}
    todo, taught = trials(request, preset, models), _teach(preset)
    outcomes = run_trials(todo, request.jobs)
    for trial, one in zip(todo, outcomes, strict=True):
        one.update(_decodings(trial, taught, _EXAMPLES[request.scale], draw=trial.seed == request.seeds[0]))
    return shared(outcomes, preset)


def variance_share(decodings: Tensor) -> float:
    """The share of a pixel's variance that z decides, pooled over pixels: (N, copies, ...) levels of N z.

    One-way random effects: between-z variance is what the variance of the means exceeds that of `copies` draws by, so
    that where z says nothing the expectation is 0 and an estimate may be below it.
    """
    x = decodings.double().flatten(2)
    copies = x.shape[1]
    within = float(x.var(1).mean())
    between = float(x.mean(1).var(0).mean()) - within / copies
    return between / (between + within)


def render(result: Mapping[str, Any]) -> str:
    """Both measures, means over seeds."""
    head = ["z ~ q(z | x), x held out", "variance of a pixel that z decides", "decodings of the class of x",
            "I(x; z), nats", "shuffle gap, nats"]  # fmt: skip
    rows = [
        [
            name,
            cell(over_seeds(runs, "variance_share", "fixed_z"), 4),
            cell(over_seeds(runs, "class_kept", "fixed_z"), 3),
            cell(over_seeds(runs, "mutual_information_nats"), 2),
            cell(over_seeds(runs, "shuffle_gap_nats"), 2),
        ]
        for name, runs in by_model(result).items()
    ]
    told = result["runs"][0]["fixed_z"]
    judge = (
        f"Classes by a linear classifier of pixels, right about {told['classifier_accuracy']:.3f} of held-out images; "
        f"with z of another image {told['chance']:.3f} would be kept. {told['examples']} z, {COPIES} decodings each."
    )
    return "\n".join([about(result), "", text_table(head, rows), "", f"{errors(result)}. {judge}"])


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """A grid for every model of the first seed: a row for each z of the auxiliary prior."""
    drawn = [run for run in result["runs"] if "grid" in run]
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(0.6 + 3.6 * len(drawn), 3.9), layout="constrained")
        data, seed = result["data"]["name"], result["seeds"][0]
        what = f"trained on {data}, seed {seed}; a row: {COPIES} decodings of one z of the auxiliary prior"
        figure.suptitle(what, x=0.01, ha="left")
        for axis, run in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(run["grid"]))))
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(run["model"], fontsize="small")
            axis.set_axis_off()
    return {"grids": figure}


@dataclass(frozen=True)
class _Taught:
    """A linear classifier of pixels, held-out images (N, C, H, W), their classes, and how often it is right."""

    classifier: Any
    heldout: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    accuracy: float


def _teach(preset: Preset) -> _Taught:
    task = image_task(preset.config(), Accelerator())
    _, labels = labelled_images(preset.data)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
    known, classes = labels.train != UNLABELLED, labels.heldout[: len(task.heldout)]
    classifier.fit(_flat(task.train_images[known]), labels.train[known])
    heldout, classes = task.heldout[classes != UNLABELLED], classes[classes != UNLABELLED]
    return _Taught(classifier, heldout, classes, float(classifier.score(_flat(heldout), classes)))


def _decodings(trial: Trial, taught: _Taught, count: int, *, draw: bool) -> dict[str, Any]:
    model = DeltaVaeForImageGeneration.from_pretrained(trial.run.model)
    random = generator(trial.seed, "fixed z")
    x, classes = torch.tensor(taught.heldout[:count]), taught.classes[:count]
    with evaluating(model):
        z = model.encode(x).sample(random)
        decoded = model.decode(z.repeat_interleave(COPIES, 0), generator=random)
        found = taught.classifier.predict(_flat(decoded.numpy())).reshape(len(x), COPIES)
        measured: dict[str, Any] = {
            "fixed_z": {
                "variance_share": variance_share(decoded.unflatten(0, (len(x), COPIES))),
                "class_kept": float((found == classes[:, None]).mean()),
                "chance": float((found[None] == classes[:, None, None])[~np.eye(len(x), dtype=np.bool_)].mean()),
                "classifier_accuracy": taught.accuracy,
                "examples": len(x),
            }
        }
        if draw:
            latents = model.sample_latents(_ROWS, x.shape[2], random)
            grid = model.decode(latents.repeat_interleave(COPIES, 0), generator=random)
            measured["grid"] = _png(DeltaVaeImageProcessor.from_pretrained(trial.run.model).postprocess(grid))
    return measured


def _flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32)


def _png(images: list[Image.Image]) -> str:
    """`COPIES` images a row, a pixel apart, as a PNG in base 64."""
    across, down = (side + 1 for side in images[0].size)
    canvas = Image.new(images[0].mode, (across * COPIES - 1, down * (len(images) // COPIES) - 1), "white")
    for place, image in enumerate(images):
        canvas.paste(image, (place % COPIES * across, place // COPIES * down))
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
