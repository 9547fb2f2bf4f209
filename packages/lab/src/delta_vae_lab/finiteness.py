"""Stopping a run before a step that is not finite, with the name of the first tensor that is not."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from delta_vae_lab.anomaly import Scene, report_anomaly
from delta_vae_lab.optimization import whole


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight stopped being a number; the last checkpoint is from before it."""


def check_finite(scene: Scene, model: nn.Module, accelerator: Accelerator) -> None:
    """Raise `NonFiniteError` on every process if the loss or a gradient of any is not finite, naming the first tensor.

    What is known of the step is in DIR/anomaly.json then.

    With fp16 an infinite gradient is ordinary, as the gradient scaler skips that step: only the loss counts.
    """
    finite = scene.loss.isfinite()
    if accelerator.scaler is None:
        for norm in scene.norms.values():
            finite = finite & whole(norm).isfinite()
    if accelerator.reduce((~finite).int()).item() == 0:
        return
    named = gather_object([find_non_finite(scene.outputs, model)])
    tensor = next((name for name in named if name), "the gradient's norm")
    raise _stopped(scene, tensor, model, accelerator)


def check_weights(scene: Scene, model: nn.Module, accelerator: Accelerator) -> None:
    """Raise `NonFiniteError` on every process if the step left a weight of any not finite, so that none is saved."""
    bad = [name for name, p in model.named_parameters() if not bool(whole(p.detach()).isfinite().all())]
    named = gather_object([bad[0] if bad else None])
    tensor = next((f"weight {name} after the step" for name in named if name), None)
    if tensor is not None:
        raise _stopped(scene, tensor, model, accelerator)


def _stopped(scene: Scene, tensor: str, model: nn.Module, accelerator: Accelerator) -> NonFiniteError:
    """The error to raise, when the step has been reported."""
    report_anomaly(scene, tensor, model, accelerator)
    return NonFiniteError(
        f"step {scene.step}: {tensor} is not finite; the checkpoints before it are kept, "
        f"and {scene.file} has its figures; "
        "start again with a lower optimization.learning_rate or optimization.mixed_precision=no"
    )


def find_non_finite(outputs: list[Any], model: nn.Module) -> str | None:
    """The first tensor that is not finite, in the order of computation: what a model returns, then gradients."""
    gradients = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    # Before any answer: all processes gather the gradients that FSDP shards, whichever sees what is not finite.
    bad = next((f"gradient of {name}" for name, grad in gradients if not bool(whole(grad).isfinite().all())), None)
    for output in outputs:
        posterior = output.posterior
        tensors = {
            "posterior mean": None if posterior is None else posterior.mean,
            "posterior log_scale": None if posterior is None else posterior.log_scale,
            "latents": output.latents,
            "rate": output.rate,
            "distortion": output.distortion,
            "auxiliary_rate": output.auxiliary_rate,
        }
        for name, tensor in tensors.items():
            if tensor is not None and not bool(tensor.isfinite().all()):
                return name
    return bad
