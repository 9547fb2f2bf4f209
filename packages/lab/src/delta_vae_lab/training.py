"""The training loop: one function with Accelerate's calls in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    TorchDynamoPlugin,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from delta_vae import DeltaVaeModel
from delta_vae_lab.anomaly import Scene, anomaly_file
from delta_vae_lab.checkpoints import (
    Progress,
    agree_on_latest_sound,
    check_state_format,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.finiteness import check_finite, check_weights
from delta_vae_lab.memory import keep_freed_memory
from delta_vae_lab.optimization import (
    build_optimizer,
    build_polyak,
    clip_gradients,
    gradient_norm,
    rate_weight,
    recompute_activations,
    set_learning_rates,
    split_parameters,
    training_loss,
    whole,
)
from delta_vae_lab.randomness import derive_seed, global_state_kept, latent_noise
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.schedule import learning_rate_factor
from delta_vae_lab.sections import OptimizationSection, RunConfig
from delta_vae_lab.stopping import Stopped, StopRequest
from delta_vae_lab.storage import writing
from delta_vae_lab.tracking import Track, check_tracker, start_tracker

logger = logging.getLogger(__name__)

Position = dict[str, Any]
BAR = ("distortion_nats", "rate_nats", "committed_rate_nats")
Model = TypeVar("Model", bound=DeltaVaeModel)


class Batches(Protocol):
    """Endless global batches, of which every process gets its own rows."""

    def iterate(self, position: Position | None) -> Iterator[tuple[Batch, Position]]:
        """Each batch with the position after it."""
        ...


def build_accelerator(config: RunConfig, run: RunFolder, cpu: bool = False) -> Accelerator:
    """The Accelerator of a run: precision, compilation and tracker are the config's, the processes the launcher's."""
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)  # tied weights are saved once, as they should
    check_tracker(config.tracker)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=config.optimization.mixed_precision,
        dynamo_plugin=TorchDynamoPlugin(backend="inductor", dynamic=True) if config.optimization.compile else None,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=run.trackers,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],  # as one process trains the tokenizer
    )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if config.optimization.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("optimization.mixed_precision=fp16: needs a GPU; on a CPU use bf16 or no")
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"gradient_accumulation_steps={accelerator.gradient_accumulation_steps} in the launcher: "
            "must be 1; set optimization.accumulation instead"
        )
    check_batch_size(config.optimization, accelerator.num_processes)
    check_state_format(accelerator)
    return accelerator


@global_state_kept()
def train(
    model: Model,
    batches: Batches,
    config: RunConfig,
    accelerator: Accelerator,
    run: RunFolder,
    evaluate: Callable[[Model, int], Mapping[str, float]] | None = None,
    resume: bool = False,
    fingerprint: dict[str, Any] | None = None,
    progress: bool = True,
) -> Model:
    """Train to `config.optimization.steps` and return the model, the Polyak average if there is one, in eval mode.

    The loss of a step is the mean over its global batch, however that is split over processes and micro-steps. Every
    process calls `evaluate(model, step)`, and has the whole model in the end, also under FSDP. `fingerprint` is the
    data's, checked on resume. `progress`: whether a bar is shown. The caller ends the trackers with
    `accelerator.end_training()`.

    On SIGTERM or SIGINT to any process the step at hand is finished, a checkpoint written, and `Stopped` raised, a
    `SystemExit`; an evaluation is abandoned, and made up for when the run is resumed.
    """
    settings = config.optimization
    architecture = type(model)  # FSDP changes it
    optimizer = build_optimizer(model, settings)
    polyak = build_polyak(model, settings, accelerator)
    if settings.activation_checkpointing:
        recompute_activations(model)
    model, optimizer = accelerator.prepare(model, optimizer)
    # Without Accelerate's autocast around `forward` alone, so that all of an evaluation is in full precision.
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False, keep_torch_compile=False)
    averaged = cast("Model", bare if polyak is None else polyak.module)
    parameters = split_parameters(bare)
    start, origin = restore(config, accelerator, run, polyak, fingerprint) if resume else (0, None)
    log = start_logging(config, accelerator, run, start)
    bar = tqdm(total=settings.steps, initial=start, disable=not (progress and accelerator.is_main_process))
    with StopRequest() as stop, bar:
        if evaluate is not None and owes_evaluation(start, config, run, accelerator):
            make_up(partial(evaluate, averaged, start), start, stop, accelerator, log)
        model.train()
        for step, (batch, position) in zip(range(start + 1, settings.steps + 1), batches.iterate(origin), strict=False):
            weight = rate_weight(config.objective, step)
            factor = learning_rate_factor(step, settings.schedule, settings.warmup_steps, settings.steps)
            set_learning_rates(optimizer, factor)

            outputs, loss = compute_gradients(model, batch, step, weight, config, accelerator, bare.config.latent_dim)
            accelerator.unscale_gradients()
            norms = {name: gradient_norm(group) for name, group in parameters.items()}
            scene = Scene(
                run.path,
                step,
                factor * settings.learning_rate,
                weight,
                settings.mixed_precision,
                position,
                batch.rows,
                loss,
                norms,
                outputs,
            )
            check_finite(scene, bare, accelerator)
            clip_gradients(parameters, norms, settings.max_grad_norm)
            optimizer.step()
            signum = stop.agreed(accelerator)
            if signum or is_saved(step, config) or is_due(step, config.evaluation.every):
                check_weights(scene, bare, accelerator)
            optimizer.zero_grad()
            if polyak is not None:
                polyak.update_parameters(bare)

            bar.update()
            if is_due(step, config.log_every):
                metrics = {
                    "step": step,
                    "epoch": position["epoch"],
                    "learning_rate": factor * settings.learning_rate,
                    "rate_weight": weight,
                    **global_means(outputs, norms, batch, accelerator),
                }
                bar.set_postfix({name: f"{metrics[name]:.2f}" for name in BAR})
                log(metrics)
            if evaluate is not None and is_due(step, config.evaluation.every) and not signum:
                watch(partial(evaluate, averaged, step), step, stop, accelerator, log)
                model.train()
                signum = stop.agreed(accelerator)
            if signum or is_saved(step, config):
                save_checkpoint(
                    run.checkpoints,
                    Progress(step, gather_object([position]), fingerprint),
                    accelerator,
                    polyak,
                    keep=config.checkpoint.keep,
                )
            if signum:
                raise Stopped(signum, step)
    return unsharded(averaged, architecture, accelerator).eval()


def compute_gradients(
    model: DeltaVaeModel,
    batch: Batch,
    step: int,
    weight: float,
    config: RunConfig,
    accelerator: Accelerator,
    latent_dim: int,
) -> tuple[list[Any], Tensor]:
    """What the model returns for each micro-batch, and the loss of all, whose gradients are those of the parameters."""
    parts = config.optimization.accumulation
    outputs, loss = [], torch.zeros((), device=accelerator.device)
    for micro, part in enumerate(micro_batches(batch, parts)):
        noise = latent_noise(part.steps, latent_dim, config.seed, step, part.rows)
        torch.manual_seed(derive_seed(config.seed, "dropout", step, micro, accelerator.process_index))
        with nullcontext() if micro == parts - 1 else accelerator.no_sync(model):
            with accelerator.autocast():
                inputs = part.to(accelerator.device).inputs()
                output = model(**inputs, noise=noise.to(accelerator.device))
            micro_loss = training_loss(output, config.objective, weight) / parts
            accelerator.backward(micro_loss)
        outputs.append(output)
        loss += micro_loss.detach()
    return outputs, loss


def watch(
    evaluate: Callable[[], Mapping[str, float]], step: int, stop: StopRequest, accelerator: Accelerator, log: Track
) -> None:
    """Log an evaluation, unless the run is asked to stop."""
    found = stop.unless_stopped(evaluate, accelerator)
    if found is not None:
        log({"step": step, **found})


def make_up(
    evaluate: Callable[[], Mapping[str, float]], step: int, stop: StopRequest, accelerator: Accelerator, log: Track
) -> None:
    """`watch` what was abandoned at the step of the checkpoint; a run that is told to stop meanwhile stays there."""
    watch(evaluate, step, stop, accelerator, log)
    if signum := stop.agreed(accelerator):
        raise Stopped(signum, step)


def unsharded(model: Model, architecture: type[Model], accelerator: Accelerator) -> Model:
    """The model, under FSDP a copy with whole parameters. Every process calls it."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return model
    copy = architecture(model.config).to(accelerator.device)
    copy.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    return copy


def check_batch_size(settings: OptimizationSection, processes: int) -> None:
    """Raise `ValueError` unless every process has equally many rows in every micro-step."""
    if settings.batch_size % (processes * settings.accumulation):
        raise ValueError(
            f"optimization.batch_size={settings.batch_size}: must be divisible by "
            f"{processes} processes x {settings.accumulation} micro-steps (optimization.accumulation)"
        )


def restore(
    config: RunConfig,
    accelerator: Accelerator,
    run: RunFolder,
    polyak: AveragedModel | None,
    fingerprint: dict[str, Any] | None,
) -> tuple[int, Position | None]:
    """Go back to the last sound checkpoint: the steps done, and this process's position in the data."""
    checkpoint = agree_on_latest_sound(run.checkpoints, accelerator)
    if checkpoint is None:
        return 0, None
    progress = read_progress(checkpoint)
    before, now = progress.fingerprint or {}, fingerprint or {}
    if changed := sorted(name for name in before | now if before.get(name) != now.get(name)):
        raise ValueError(
            f"{checkpoint}: was trained with another {', '.join(changed)}; resume with the same, or in another folder"
        )
    if progress.step > config.optimization.steps:
        raise ValueError(
            f"optimization.steps={config.optimization.steps}: {checkpoint} is already past it; "
            f"set at least {progress.step}"
        )
    position = own_position(progress.positions, accelerator)
    load_checkpoint(checkpoint, accelerator, polyak)
    return progress.step, position


def own_position(positions: list[Position], accelerator: Accelerator) -> Position:
    """The position of this process; with another number of processes, the one position that all of them shared."""
    if len(positions) == accelerator.num_processes:
        return positions[accelerator.process_index]
    if any(position != positions[0] for position in positions):
        raise ValueError(
            f"resuming with {accelerator.num_processes} processes a run of {len(positions)}: "
            "each had its own position in the data; resume with as many"
        )
    logger.warning(
        "resuming with %d processes a run of %d: the data goes on where it was, dropout draws differ from here on",
        accelerator.num_processes,
        len(positions),
    )
    return positions[0]


def start_logging(config: RunConfig, accelerator: Accelerator, run: RunFolder, start: int) -> Track:
    """Go back to what was logged up to the step `start`; what logs from there on, to metrics.jsonl and the tracker."""
    track = start_tracker(accelerator, config, run, start)
    if accelerator.is_main_process:
        run.cut_metrics(start)
        anomaly_file(run.path).unlink(missing_ok=True)  # of a life before this one

    def log(metrics: Mapping[str, float]) -> None:
        if accelerator.is_main_process:
            with writing(f"the metrics of step {metrics['step']}", run.path):
                run.log(metrics)
            track(metrics)

    return log


def owes_evaluation(start: int, config: RunConfig, run: RunFolder, accelerator: Accelerator) -> bool:
    """Whether the evaluation at the step `start` was abandoned. Every process calls it, and gets the same answer."""
    if start == 0 or not is_due(start, config.evaluation.every):
        return False
    at_start = [line for line in run.metrics() if line["step"] == start] if accelerator.is_main_process else []
    owes = [all("learning_rate" in line for line in at_start)]  # which a line of training has
    return bool(broadcast_object_list(owes)[0])


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens at this one."""
    return every > 0 and step % every == 0


def is_saved(step: int, config: RunConfig) -> bool:
    """Whether a checkpoint is written after this step."""
    return is_due(step, config.checkpoint.every) or step == config.optimization.steps


def micro_batches(batch: Batch, parts: int) -> Iterator[Batch]:
    """Micro-batches of equal size; each row keeps its index in the global batch."""
    size = len(batch.rows) // parts
    for i in range(0, len(batch.rows), size):
        yield batch.part(slice(i, i + size))


def global_means(
    outputs: list[Any], norms: dict[str, Tensor], batch: Batch, accelerator: Accelerator
) -> dict[str, float]:
    """Means over the global batch, in nats a sequence or image, and the norms of the gradients before clipping."""
    means = {
        "distortion_nats": torch.cat([output.distortion for output in outputs]).mean(),
        "rate_nats": torch.cat([output.rate for output in outputs]).mean(),
        "committed_rate_nats": torch.cat([output.committed_rate for output in outputs]).mean(),
    }
    means["negative_elbo_nats"] = means["rate_nats"] + means["distortion_nats"]
    if outputs[0].auxiliary_rate is not None:
        means["auxiliary_rate_nats"] = torch.cat([output.auxiliary_rate for output in outputs]).mean()
    means[batch.modality.units_per_example] = batch.units.float().mean().to(accelerator.device)
    means |= {f"{name}_gradient_norm": whole(norm) for name, norm in norms.items()}
    values = accelerator.reduce(torch.stack([value.detach().float() for value in means.values()]), "mean").tolist()
    return dict(zip(means, values, strict=True))
