"""What is optimised, and the optimizer: objective, AdamW and its groups, gradients, Polyak average."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel

from delta_vae.objectives import beta_elbo, cyclical_annealing, free_bits, linear_annealing
from delta_vae_lab.sections import ObjectiveSection, OptimizationSection


def rate_weight(objective: ObjectiveSection, step: int) -> float:
    """What the rate is multiplied by at this step: beta, annealed."""
    beta = objective.beta if objective.name == "beta" else 1.0
    if objective.annealing == "linear":
        return beta * linear_annealing(step, objective.annealing_steps)
    if objective.annealing == "cyclical":
        return beta * cyclical_annealing(step, objective.annealing_steps, objective.cycles)
    return beta


def objective_nats(output: Any, objective: ObjectiveSection, weight: float) -> Tensor:
    """What is minimised, in nats a sequence, the auxiliary prior apart: (B,)."""
    if objective.name == "free_bits" and output.kl is not None:
        return free_bits(output.kl, output.distortion, objective.floor_nats, objective.per, output.mask)
    return beta_elbo(output.rate, output.distortion, weight)


def training_loss(output: Any, objective: ObjectiveSection, weight: float) -> Tensor:
    """What a batch is trained on: its mean objective, and its mean rate against the auxiliary prior, for that alone."""
    loss = objective_nats(output, objective, weight).mean()
    return loss if output.auxiliary_rate is None else loss + output.auxiliary_rate.mean()


def build_optimizer(model: nn.Module, settings: OptimizationSection) -> torch.optim.AdamW:
    """AdamW that decays matrices only, not norms, biases and embeddings; each group carries its peak learning rate."""
    embeddings = {id(table.weight) for table in model.modules() if isinstance(table, nn.Embedding)}
    peaks = {"model": settings.learning_rate, "auxiliary_prior": settings.auxiliary_learning_rate}
    groups: list[dict[str, Any]] = []
    for name, parameters in split_parameters(model).items():
        decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in embeddings]
        kept = [p for p in parameters if p.ndim < 2 or id(p) in embeddings]
        for members, decay in ((decayed, settings.weight_decay), (kept, 0.0)):
            groups.append({"params": members, "weight_decay": decay, "peak_learning_rate": peaks[name]})
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=settings.betas, fused=True)


def split_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """What is trained on the objective, and the auxiliary prior if there is one."""
    groups: dict[str, list[nn.Parameter]] = {"model": [], "auxiliary_prior": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["auxiliary_prior" if name.startswith("auxiliary_prior.") else "model"].append(parameter)
    return {name: group for name, group in groups.items() if group}


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate is `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_learning_rate"]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients taken as one vector: a scalar, sharded if they are."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: dict[str, list[nn.Parameter]], norms: dict[str, Tensor], max_norm: float) -> None:
    """Scale the gradients of each group to at most `max_norm` (0: leave them).

    Each by itself, so that the auxiliary prior has no say in the model's steps.
    """
    if max_norm:
        for name, group in parameters.items():
            nn.utils.clip_grads_with_norm_(group, max_norm, norms[name])


def whole(tensor: Tensor) -> Tensor:
    """The full value of a tensor that FSDP may have sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def recompute_activations(model: PreTrainedModel) -> None:
    """Have the stacks keep no activations within their layers, but compute them anew for the gradient."""
    new_name = hasattr(model, "activation_checkpointing_enable")
    enable: Callable[[], None] = (
        model.activation_checkpointing_enable if new_name else model.gradient_checkpointing_enable
    )
    enable()
    model.disable_input_require_grads()  # a hook that only adapters need, and that fast drawing would have to heed


def build_polyak(model: nn.Module, settings: OptimizationSection, accelerator: Accelerator) -> AveragedModel | None:
    """The exponential moving average of the parameters, beginning at those after the first step."""
    if not settings.polyak_decay:
        return None
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            f"optimization.polyak_decay={settings.polyak_decay}: sharded (FSDP) parameters are not averaged; "
            "set it to 0 or launch without FSDP"
        )
    return AveragedModel(model.to(accelerator.device), multi_avg_fn=get_ema_multi_avg_fn(settings.polyak_decay))
