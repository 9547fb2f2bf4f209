"""The latents of a data set: what probes read, and what `delta-vae encode` writes as one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from delta_vae_lab.console import bar
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.randomness import derive_seed, latent_noise
from delta_vae_lab.saved_model import SavedModel, load_examples, load_model
from delta_vae_lab.subject import evaluating
from delta_vae_lab.use import check_new_file

BATCH_SIZE = 64
UNITS = {
    "mean": "of q(z | x), (N, T, D); 0 where the mask is false, as log_scale and z",
    "log_scale": "natural logarithm of the standard deviation of q(z | x), (N, T, D)",
    "mask": "the latent steps that an example has, (N, T)",
    "z": "one draw of q(z | x), by the seed and the example's row, (N, T, D)",
}


class Posteriors(NamedTuple):
    """q(z | x) of N examples in the order of their data, and one draw; T is the largest number of latent steps.

    mean, log_scale, z: (N, T, D), float32, zero beyond an example's end. mask: (N, T), the steps that count.
    """

    mean: Tensor
    log_scale: Tensor
    mask: Tensor
    z: Tensor

    def pooled(self, values: Tensor) -> Tensor:
        """(N, T, D) -> (N, D), the mean over the steps that count."""
        return values.sum(1) / self.mask.sum(1, keepdim=True)


def encode(model: SavedModel, batches: Sequence[Batch], seed: int = 0, purpose: str = "evaluation") -> Posteriors:
    """The posteriors of batches that hold the rows 0 ... N - 1, each once, in whatever order.

    Each example draws its own z by seed, purpose and row; as it stands, that of an evaluation with this seed.
    """
    rows = torch.tensor([row for batch in batches for row in batch.rows])
    shape = (len(rows), max(batch.steps.shape[1] for batch in batches))
    mean, log_scale, z = (torch.zeros(*shape, model.config.latent_dim) for _ in range(3))
    mask = torch.zeros(shape, dtype=torch.bool)
    with evaluating(model):
        for batch in bar(batches, "encoding"):
            steps = batch.steps.cpu()
            posterior = model.encode(**batch.to(model.device).inputs())
            noise = latent_noise(steps, model.config.latent_dim, derive_seed(seed, purpose), 0, batch.rows)
            drawn = posterior.sample(noise=noise.to(model.device))
            for kept, values in ((mean, posterior.mean), (log_scale, posterior.log_scale), (z, drawn)):
                kept[batch.rows, : steps.shape[1]] = values.float().cpu().where(steps[..., None], 0.0)
            mask[batch.rows, : steps.shape[1]] = steps
    return Posteriors(mean, log_scale, mask, z)


def run_encode(
    model: str,
    data: str,
    output: Path,
    *,
    split: str = "heldout",
    examples: int | None = None,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Write the posteriors of the first `examples` of a split to `output`, row i of example i."""
    if output.suffix != ".safetensors":
        raise ValueError(f"{output}: latents are written as safetensors; give a name that ends in .safetensors")
    check_new_file(output)
    saved = load_model(model)
    if saved.encoder is None:
        raise ValueError(f"{model}: has no encoder (latent_dim=0), so nothing encodes; give a model with latents")
    found = load_examples(model, saved, data, split=split, examples=examples)
    posteriors = encode(saved, found.batches(BATCH_SIZE), seed)
    about = {
        "model": model,
        "data": found.name,
        "fingerprint": json.dumps(found.fingerprint),
        "split": split,
        "examples": str(len(found)),
        "seed": str(seed),
        "units": json.dumps(UNITS),
    }
    partial = output.with_name(f"{output.name}.partial")
    partial.write_bytes(save(posteriors._asdict(), {"format": "pt", **about}))
    partial.replace(output)
    n, steps, dims = posteriors.mean.shape
    told = f"Written to {output}: q(z | x) of {n:,} examples ({split}), {steps} steps of {dims} dimensions."
    print(json.dumps({"written": str(output), "shape": [n, steps, dims]}) if as_json else told)
