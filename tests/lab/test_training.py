"""Training: a step is the same however it is split, and a run the same however often it is killed."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab import checkpoints, finiteness
from delta_vae_lab.architecture import text_model_config
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data.text_batches import TextBatch, TextBatches, heldout_batches
from delta_vae_lab.data.tokenization import train_tokenizer
from delta_vae_lab.data.tokens import tokenize
from delta_vae_lab.finiteness import NonFiniteError, find_non_finite
from delta_vae_lab.measurement import Record, measure
from delta_vae_lab.optimization import build_optimizer, split_parameters
from delta_vae_lab.randomness import derive_seed
from delta_vae_lab.reporting import HeldoutBound
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.schedule import learning_rate_factor
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.subject import evaluating
from delta_vae_lab.training import build_accelerator, train

TINY = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
encoder: {hidden_size: 8, num_layers: 1, num_heads: 2}
decoder: {hidden_size: 8, num_layers: 1, num_heads: 2, dropout: 0.0}
auxiliary_prior: {hidden_size: 4}
tokenizer: {vocab_size: 262}
optimization: {steps: 4, batch_size: 4, warmup_steps: 2, polyak_decay: 0.5}
checkpoint: {every: 3, keep: 9}
log_every: 1
tracker: none
"""
SENTENCES = [" ".join(["cat", "mat", "sat"][: 1 + i % 3] * (1 + i % 4)) for i in range(20)]  # 1 to 12 words: 5 batches
FINGERPRINT = {"train": "abc"}


def configure(folder: Path, *overrides: str) -> TextRunConfig:
    file = folder.with_name(f"{folder.name}-{os.getpid()}.yaml")  # two processes do not write the same one
    file.write_text(TINY)
    return load_config(TextRunConfig, file, overrides)


def build(config: TextRunConfig, accelerator: Accelerator) -> tuple[DeltaVaeForCausalLM, TextBatches]:
    tokenizer = train_tokenizer(SENTENCES, config.tokenizer.vocab_size)
    torch.manual_seed(derive_seed(config.seed, "parameters"))
    model = DeltaVaeForCausalLM(text_model_config(config, tokenizer))
    batches = TextBatches(
        tokenize(tokenizer, SENTENCES),
        batch_size=config.optimization.batch_size,
        pad_token_id=tokenizer.pad_token_id,
        seed=config.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        bucket_batches=2,
    )
    return model, batches


def run_training(
    folder: Path, *overrides: str, resume: bool = False, shard: bool = False, **arguments: Any
) -> DeltaVaeForCausalLM:
    config, run = configure(folder, *overrides), RunFolder(folder)
    accelerator = build_accelerator(config, run, cpu=True)
    if shard:
        shard_on_cpu()
    if accelerator.is_main_process:
        run.start(config, resume)
    accelerator.wait_for_everyone()
    model, batches = build(config, accelerator)
    arguments = {"fingerprint": FINGERPRINT} | arguments
    return train(model, batches, config, accelerator, run, resume=resume, **arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    AcceleratorState._reset_state(reset_partial_state=True)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return RunFolder(folder).metrics()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def run_this_file(*arguments: str, launcher: tuple[str, ...] = ()) -> None:
    command = [sys.executable, *launcher, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Killed and resumed. In a process of its own, which forks one for every life of a run: so all of them import once.

STEPS = 12
EXACT = (
    f"optimization.steps={STEPS}",
    "optimization.accumulation=2",
    "encoder.dropout=0.2",
    "decoder.dropout=0.2",
    "evaluation.every=2",
)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killed:
    """Batches that end with the process when the batch of a step is asked for."""

    def __init__(self, batches: TextBatches, step: int) -> None:
        self.batches, self.step = batches, step

    def iterate(self, position: dict[str, Any] | None) -> Iterator[tuple[TextBatch, dict[str, Any]]]:
        done = 0 if position is None else position["epoch"] * self.batches.batches_per_epoch + position["batch"]
        for step, item in enumerate(self.batches.iterate(position), start=done + 1):
            if step == self.step:
                die()
            yield item


def disturb(model: DeltaVaeForCausalLM, step: int) -> dict[str, float]:
    """An evaluation that leaves the global random state other than it found it."""
    torch.rand(step)
    return {"weight": float(model.decoder.embedding.weight.detach().sum())}


def one_life(folder: Path, resume: bool, die_at: str | int | None) -> None:
    config, run = configure(folder, *EXACT), RunFolder(folder)
    accelerator = build_accelerator(config, run, cpu=True)
    run.start(config, resume)
    model, batches = build(config, accelerator)
    if isinstance(die_at, str):  # a function of `checkpoints`: killed where it would begin
        setattr(checkpoints, die_at, die)
    killed = Killed(batches, die_at if isinstance(die_at, int) else 0)
    trained = train(model, killed, config, accelerator, run, disturb, resume, FINGERPRINT)
    trained.save_pretrained(run.model)


def live_and_die(folder: Path) -> None:
    for name, resume, die_at in [
        ("calm", False, None),
        ("killed", False, 6),  # after the checkpoint of step 3
        ("killed", True, "seal"),  # in the checkpoint of step 6, before its manifest
        ("killed", True, "_put_in_place"),  # in it again, all written but its name
        ("killed", True, "_prune"),  # after it
        ("killed", True, 9),  # before step 9, so that the next begins where this one did
        ("killed", True, None),
    ]:
        child = os.fork()
        if child == 0:
            one_life(folder / name, resume, die_at)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        assert (signalled, status) == ((signal.SIGKILL, signal.SIGKILL) if die_at else (0, 0)), (name, die_at, status)
        if die_at in {"seal", "_put_in_place"}:
            assert [path.name for path in (folder / name / "checkpoints").glob(".*")] == [".step-00000006.partial"]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_and_resumed_is_the_run_bit_for_bit(tmp_path: Path) -> None:
    run_this_file("live_and_die", str(tmp_path))
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert {line["epoch"] for line in metrics_of(calm) if "epoch" in line} == {0, 1, 2}
    assert len(metrics_of(calm)) == STEPS + STEPS // 2
    last = f"checkpoints/step-{STEPS:08d}"
    for file in ("model.safetensors", "polyak.safetensors", "optimizer.bin", "progress.json"):
        assert (calm / last / file).read_bytes() == (killed / last / file).read_bytes(), file
    for file in ("metrics.jsonl", "model/model.safetensors"):
        assert (calm / file).read_bytes() == (killed / file).read_bytes(), file


# Split over processes and micro-steps.

SPLIT = ("optimization.batch_size=8", "optimization.schedule=constant", "optimization.accumulation=2")
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def two_processes(folder: Path) -> None:
    """Each with two micro-steps, with DDP and with FSDP; the models are written by the first."""
    ddp = run_training(folder / "ddp", *SPLIT)
    AcceleratorState._reset_state()
    unaveraged = ("optimization.polyak_decay=0", "evaluation.every=2")
    fsdp = run_training(folder / "fsdp", *SPLIT, *unaveraged, shard=True, evaluate=evaluate_sharded)
    assert AcceleratorState().num_processes == 2
    if AcceleratorState().is_main_process:  # alone, as it writes a report
        ddp.save_pretrained(folder / "ddp" / "model")
        fsdp.save_pretrained(folder / "fsdp" / "model")
        (folder / "fsdp" / "watched.json").write_text(json.dumps(watch_sentences()(fsdp, 4)))


def shard_on_cpu() -> None:
    """What a launch with FSDP sets in the state of Accelerate, which has it for GPUs alone."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        state_dict_type="FULL_STATE_DICT",
        reshard_after_forward=True,
    )
    for state in (PartialState, AcceleratorState):
        state._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}


def evaluate_sharded(model: DeltaVaeForCausalLM, step: int) -> dict[str, float]:
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return watch_sentences()(model, step)


def watch_sentences() -> HeldoutBound:
    tokenizer = train_tokenizer(SENTENCES, 262)
    return HeldoutBound(list(heldout_batches(tokenize(tokenizer, SENTENCES), 8, tokenizer.pad_token_id)), seed=0)


def measure_sentences(model: DeltaVaeForCausalLM) -> Record:
    return measure(model, watch_sentences().batches, seed=0)


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs `ddp` and `fsdp`. Not to be changed."""
    folder = tmp_path_factory.mktemp("of_two_processes")
    run_this_file("two_processes", str(folder), launcher=TWO_PROCESSES)
    return folder


@pytest.fixture
def of_two(of_two_processes: Path) -> Path:
    return of_two_processes / "ddp"


@pytest.mark.slow
def test_sharding_changes_rounding_only_and_gives_a_whole_model(of_two_processes: Path) -> None:
    sharded = of_two_processes / "fsdp"
    expected = load_file(of_two_processes / "ddp" / "checkpoints" / "step-00000004" / "model.safetensors")
    model = DeltaVaeForCausalLM.from_pretrained(sharded / "model")
    for name, weight in expected.items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-3, atol=1e-5)
    evaluated = [line for line in metrics_of(sharded) if "heldout_shuffle_gap_nats" in line]
    assert [line.pop("step") for line in evaluated] == [2, 4]
    assert json.loads((sharded / "watched.json").read_text()) == pytest.approx(evaluated[-1], rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_two_processes_with_two_micro_steps_give_the_run_of_one(folder: Path, of_two: Path) -> None:
    alone = run_training(folder, *SPLIT, "optimization.accumulation=1")
    for one_line, two_line in zip(metrics_of(folder), metrics_of(of_two), strict=True):
        assert two_line == pytest.approx(one_line, rel=1e-4)
    for name, weight in load_file(of_two / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, alone.state_dict()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_as_one(folder: Path, of_two: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The position in map-style data is the same in all processes, so their number may change."""
    shutil.copytree(of_two, folder)
    with caplog.at_level(logging.WARNING, "delta_vae_lab"):
        resumed = run_training(folder, *SPLIT, "optimization.steps=6", resume=True)
    assert "resuming with 1 processes a run of 2" in caplog.text
    whole = folder.with_name("whole")
    uninterrupted = run_training(whole, *SPLIT, "optimization.steps=6")
    for one_line, two_line in zip(metrics_of(whole), metrics_of(folder), strict=True):
        assert two_line == pytest.approx(one_line, rel=1e-4)
    torch.testing.assert_close(weights_of(resumed), weights_of(uninterrupted), rtol=1e-3, atol=1e-5)


def test_processes_that_were_at_different_places_keep_their_number(folder: Path) -> None:
    run_training(folder)
    last = folder / "checkpoints" / "step-00000004"
    progress = json.loads((last / "progress.json").read_text())
    (last / "progress.json").write_text(json.dumps(progress | {"positions": [{"batch": 1}, {"batch": 2}]}))
    checkpoints.seal(last)
    with pytest.raises(ValueError, match="resuming with 1 processes a run of 2: each had its own position"):
        run_training(folder, resume=True)


def test_processes_wait_for_each_other_as_long_as_a_tokenizer_takes(folder: Path) -> None:
    accelerator = build_accelerator(configure(folder), RunFolder(folder), cpu=True)
    assert accelerator.init_handler.timeout == timedelta(hours=2)


def test_micro_steps_change_rounding_only(folder: Path) -> None:
    whole, parts = folder.with_name("whole"), folder.with_name("parts")
    a = weights_of(run_training(whole))
    b = weights_of(run_training(parts, "optimization.accumulation=4"))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    for one, other in zip(metrics_of(whole), metrics_of(parts), strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_a_batch_that_cannot_be_split_evenly_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=4: must be divisible by optimization.accumulation=3"):
        run_training(folder, "optimization.accumulation=3")


# What a step does.


def test_training_learns(folder: Path) -> None:
    run_training(folder, "optimization.steps=40", "optimization.learning_rate=0.01", "optimization.polyak_decay=0")
    lines = metrics_of(folder)
    per_token = [line["distortion_nats"] / line["tokens_per_sequence"] for line in lines]
    assert sum(per_token[-5:]) / 5 < sum(per_token[:5]) / 5 - 1.0
    assert all(line["rate_nats"] >= line["committed_rate_nats"] for line in lines)


def test_the_auxiliary_prior_leaves_the_model_as_it_would_be_without(folder: Path) -> None:
    """Also under clipping, where one common norm would couple them."""
    tight = "optimization.max_grad_norm=0.01"
    with_it = weights_of(run_training(folder.with_name("with"), tight, "optimization.auxiliary_learning_rate=0.1"))
    without = weights_of(run_training(folder.with_name("without"), tight, "auxiliary_prior.enabled=false"))
    assert with_it.keys() > without.keys()
    assert_equal({name: with_it[name] for name in without}, without)


def test_the_polyak_average_is_the_average_of_the_steps(folder: Path) -> None:
    """After 3 steps with decay 1/2: w1 / 4 + w2 / 4 + w3 / 2."""
    averaged = run_training(folder, "optimization.steps=3", "checkpoint.every=1").state_dict()
    w1, w2, w3 = (load_file(folder / "checkpoints" / f"step-{s:08d}" / "model.safetensors") for s in (1, 2, 3))
    assert not torch.equal(w1["decoder.embedding.weight"], w3["decoder.embedding.weight"])
    for name in w1:
        torch.testing.assert_close(averaged[name], w1[name] / 4 + w2[name] / 4 + w3[name] / 2)


def test_the_learning_rate_is_the_schedules_at_every_step(folder: Path) -> None:
    run_training(folder, "optimization.schedule=inverse_sqrt", "optimization.learning_rate=0.01")
    expected = [0.01 * learning_rate_factor(step, "inverse_sqrt", 2, 4) for step in range(1, 5)]
    assert [line["learning_rate"] for line in metrics_of(folder)] == expected
    saved = torch.load(folder / "checkpoints" / "step-00000004" / "optimizer.bin", weights_only=True)
    assert {group["lr"] for group in saved["param_groups"]} == {expected[-1], expected[-1] / 10}


def test_only_matrices_decay(folder: Path) -> None:
    config = configure(folder)
    model, _ = build(config, Accelerator(cpu=True))
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, config.optimization).param_groups
    assert sorted(name_of.values()) == sorted(name_of[p] for group in groups for p in group["params"])
    decayed = {name_of[p] for group in groups if group["weight_decay"] for p in group["params"]}
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    lstm = {f"auxiliary_prior.lstm.weight_{kind}_l0" for kind in ("ih", "hh")}
    assert decayed == linear - {"decoder.head.weight"} | lstm  # the head is the embedding's own matrix


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (["objective.name=beta", "objective.beta=0.5"], [0.5, 0.5, 0.5, 0.5]),
        (["objective.annealing=linear", "objective.annealing_steps=2"], [0.5, 1.0, 1.0, 1.0]),
        (["objective.annealing=cyclical", "objective.annealing_steps=8", "objective.cycles=1"], [0.25, 0.5, 0.75, 1.0]),
        (["objective.name=free_bits", "objective.floor_nats=0.5"], [1.0, 1.0, 1.0, 1.0]),
        (["prior.kind=standard_normal"], [1.0, 1.0, 1.0, 1.0]),
        (["prior.kind=independent_delta"], [1.0, 1.0, 1.0, 1.0]),
        (["prior.kind=lstm", "prior.hidden_size=5"], [1.0, 1.0, 1.0, 1.0]),
        (["prior.kind=none"], [1.0, 1.0, 1.0, 1.0]),
        (["optimization.mixed_precision=bf16"], [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_every_objective_prior_and_precision_trains(folder: Path, overrides: list[str], weights: list[float]) -> None:
    """And the rate reported is raw: nothing below what is committed, whatever its weight."""
    run_training(folder, *overrides)
    lines = metrics_of(folder)
    assert [line["rate_weight"] for line in lines] == weights
    for line in lines:
        assert line["rate_nats"] >= line["committed_rate_nats"] * (1 - 1e-6)
        assert line["negative_elbo_nats"] == pytest.approx(line["distortion_nats"] + line["rate_nats"])
        assert (line["rate_nats"] == 0) == ("prior.kind=none" in overrides)


def test_an_lstm_prior_learns_with_the_model(folder: Path) -> None:
    """Its weights are in the model's group, the auxiliary prior's in their own; in 20 steps the loss falls."""
    lstm = ("prior.kind=lstm", "prior.hidden_size=5")
    config = configure(folder, *lstm)
    model, _ = build(config, Accelerator(cpu=True))
    before, ours = weights_of(model), {id(p) for p in model.prior.parameters()}
    groups = split_parameters(model)
    assert ours <= {id(p) for p in groups["model"]}
    assert {id(p) for p in groups["auxiliary_prior"]} == {id(p) for p in model.auxiliary_prior.parameters()}
    AcceleratorState._reset_state(reset_partial_state=True)

    trained = weights_of(run_training(folder, *lstm, "optimization.steps=20", "optimization.learning_rate=0.01"))
    assert [name for name in before if name.startswith("prior.") and torch.equal(before[name], trained[name])] == []
    losses = [line["negative_elbo_nats"] for line in metrics_of(folder)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5]), "five steps are an epoch"


def test_evaluation_is_in_full_precision_whatever_training_is_in(folder: Path) -> None:
    """So that what a part of the model says alone agrees with what the model says."""
    differences = []

    def evaluate(model: DeltaVaeForCausalLM, step: int) -> dict[str, float]:
        record = measure_sentences(model)
        with evaluating(model):
            log_prob = model.decoder(record.x, record.z, record.mask).log_prob(record.x)
        alone = -(log_prob.double() * record.mask).sum(1)
        differences.append(float((alone - record.distortion).abs().max()))
        return {}

    run_training(
        folder,
        "optimization.mixed_precision=bf16",
        "optimization.polyak_decay=0",
        "evaluation.every=2",
        evaluate=evaluate,
    )
    assert len(differences) == 2
    assert max(differences) < 1e-4


def test_the_objective_decides_what_is_learned(folder: Path) -> None:
    """With beta 0 the rate costs nothing and ends higher than with beta 10."""
    last = {}
    for beta in (0, 10):
        name = folder.with_name(f"beta-{beta}")
        run_training(name, "objective.name=beta", f"objective.beta={beta}", "optimization.steps=30")
        last[beta] = metrics_of(name)[-1]
    assert (
        last[0]["rate_nats"] - last[0]["committed_rate_nats"] > last[10]["rate_nats"] - last[10]["committed_rate_nats"]
    )


# What goes wrong.


def poison_gradient(model: DeltaVaeForCausalLM) -> None:
    dict(model.named_parameters())["encoder.statistics.weight"].register_hook(lambda gradient: gradient * torch.nan)


def poison_weight(model: DeltaVaeForCausalLM) -> None:
    with torch.no_grad():
        dict(model.named_parameters())["encoder.statistics.bias"][-1] = torch.inf


@pytest.mark.parametrize(
    ("poison", "tensor"),
    [(poison_gradient, "gradient of encoder.statistics.weight"), (poison_weight, "posterior log_scale")],
)
def test_what_is_not_finite_stops_before_the_step_and_is_named(
    folder: Path, poison: Callable[[DeltaVaeForCausalLM], None], tensor: str
) -> None:
    config, run = configure(folder, "optimization.polyak_decay=0", "checkpoint.every=2"), RunFolder(folder)
    accelerator = build_accelerator(config, run, cpu=True)
    run.start(config, resume=False)
    model, batches = build(config, accelerator)
    before: dict[str, Tensor] = {}

    class Poisoned(TextBatches):
        def iterate(self, position: dict[str, Any] | None = None) -> Iterator[tuple[TextBatch, dict[str, Any]]]:
            for step, item in enumerate(batches.iterate(position), start=1):
                if step == 3:
                    poison(model)
                    before.update({name: weight.clone() for name, weight in weights_of(model).items()})
                yield item

    poisoned = Poisoned.__new__(Poisoned)
    with pytest.raises(NonFiniteError, match=f"^step 3: {tensor} is not finite; the checkpoints before it") as error:
        train(model, poisoned, config, accelerator, run)
    assert "\n" not in str(error.value)
    assert_equal(weights_of(model), before)
    assert checkpoints.latest_sound(run.checkpoints) == run.checkpoints / "step-00000002"
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_a_resumed_run_has_no_anomaly_of_a_life_before(folder: Path) -> None:
    run_training(folder)
    (folder / "anomaly.json").write_text("{}")
    run_training(folder, resume=True)
    assert not (folder / "anomaly.json").exists()


def test_gradients_are_gathered_also_where_something_before_them_is_not_finite(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With FSDP every process takes part in that, or the others wait for it."""
    model, batches = build(configure(folder), Accelerator(cpu=True))
    batch, _ = next(batches.iterate(None))
    output = model(batch.input_ids, batch.attention_mask)
    output.loss.backward()
    output.distortion = output.distortion * torch.nan
    gathered: list[Tensor] = []
    monkeypatch.setattr(finiteness, "whole", lambda tensor: gathered.append(tensor) or tensor)
    assert find_non_finite([output], model) == "distortion"
    assert len(gathered) == sum(p.grad is not None for p in model.parameters()) > 0


def test_resuming_a_run_that_has_ended_gives_its_model(folder: Path) -> None:
    trained = run_training(folder)
    assert_equal(weights_of(trained), weights_of(run_training(folder, resume=True)))
    assert len(metrics_of(folder)) == 4


def test_resume_begins_where_there_is_no_checkpoint_yet(folder: Path) -> None:
    run_training(folder, resume=True)
    shutil.rmtree(folder / "checkpoints")
    run_training(folder, resume=True)
    assert [line["step"] for line in metrics_of(folder)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fingerprint", "changed"),
    [({"train": "abd"}, "train"), (FINGERPRINT | {"tokenizer": "0"}, "tokenizer"), (None, "train")],
)
def test_resuming_on_other_data_is_refused(folder: Path, fingerprint: dict[str, str] | None, changed: str) -> None:
    run_training(folder)
    with pytest.raises(ValueError, match=f"step-00000004: was trained with another {changed}; resume with the same"):
        run_training(folder, resume=True, fingerprint=fingerprint)


def test_a_run_without_a_sound_checkpoint_is_not_begun_anew(folder: Path) -> None:
    run_training(folder)
    before = (folder / "metrics.jsonl").read_bytes()
    for checkpoint in (folder / "checkpoints").iterdir():
        (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="every checkpoint is damaged"):
        run_training(folder, resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_resuming_to_fewer_steps_is_refused(folder: Path) -> None:
    run_training(folder, "optimization.schedule=constant")
    with pytest.raises(ValueError, match=r"optimization.steps=3: .*step-00000004 is already past it; set at least 4"):
        run_training(folder, "optimization.schedule=constant", "optimization.steps=3", resume=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimization.mixed_precision=fp16", r"mixed_precision=fp16: needs a GPU; on a CPU use bf16 or no"),
        ("tracker=swanlab", r"tracker='swanlab': must be none or one of .*tensorboard.*; install"),
    ],
)
def test_what_this_machine_lacks_is_an_error_and_no_silent_fallback(folder: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_training(folder, override)


def test_accumulation_is_the_configs_and_not_the_launchers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    with pytest.raises(
        ValueError, match=r"gradient_accumulation_steps=2 in the launcher: .* optimization.accumulation"
    ):
        run_training(folder)


def test_tensorboard_gets_the_metrics(folder: Path) -> None:
    run_training(folder, "tracker=tensorboard")
    assert list((folder / "trackers").rglob("events.out.tfevents.*"))


if __name__ == "__main__":
    {"live_and_die": live_and_die, "two_processes": two_processes}[sys.argv[1]](Path(sys.argv[2]))
