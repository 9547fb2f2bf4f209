"""Two processes: one exchange of gradients a step, and sharded runs that are stopped, resumed, computed anew."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.architecture import text_model_config
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data.text_batches import TextBatches
from delta_vae_lab.data.tokenization import train_tokenizer
from delta_vae_lab.data.tokens import tokenize
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.training import build_accelerator, train

TINY = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
encoder: {hidden_size: 8, num_layers: 2, num_heads: 2, dropout: 0.1}
decoder: {hidden_size: 8, num_layers: 2, num_heads: 2, dropout: 0.1}
auxiliary_prior: {hidden_size: 4}
tokenizer: {vocab_size: 262}
optimization: {steps: 4, batch_size: 8, warmup_steps: 2, schedule: constant}
checkpoint: {every: 2, keep: 9}
log_every: 1
tracker: none
"""
SENTENCES = [" ".join(["cat", "mat", "sat"][: 1 + i % 3] * (1 + i % 4)) for i in range(20)]


def shard() -> None:
    """What a launch with FSDP sets in the state of Accelerate, which has it for GPUs alone."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        state_dict_type="FULL_STATE_DICT",
        reshard_after_forward=True,
    )
    for state in (PartialState, AcceleratorState):
        state._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}


def run(folder: Path, *overrides: str, fsdp: bool = False, resume: bool = False, count: bool = False) -> dict[str, int]:
    """Train, save the model, and say how often gradients were exchanged."""
    file = folder.with_name(f"{folder.name}-{PartialState(cpu=True).process_index}.yaml")
    file.write_text(TINY)
    config, place = load_config(TextRunConfig, file, overrides), RunFolder(folder)
    accelerator = build_accelerator(config, place, cpu=True)
    assert accelerator.num_processes == 2
    if fsdp:
        shard()
    if accelerator.is_main_process:
        place.start(config, resume)
    accelerator.wait_for_everyone()
    tokenizer = train_tokenizer(SENTENCES, config.tokenizer.vocab_size)
    torch.manual_seed(0)
    model = DeltaVaeForCausalLM(text_model_config(config, tokenizer))
    batches = TextBatches(
        tokenize(tokenizer, SENTENCES),
        batch_size=8,
        pad_token_id=tokenizer.pad_token_id,
        seed=0,
        rank=accelerator.process_index,
        world_size=2,
    )
    exchanges = {"exchanges": 0}
    if count:
        counting(accelerator, exchanges)
    trained = train(model, batches, config, accelerator, place, resume=resume, progress=False)
    if accelerator.is_main_process:
        trained.save_pretrained(place.model)
    accelerator.wait_for_everyone()
    AcceleratorState._reset_state()
    return exchanges


def counting(accelerator: Accelerator, exchanges: dict[str, int]) -> None:
    """Let the model that Accelerate has prepared count its exchanges; its gradients are one bucket."""
    prepare = accelerator.prepare

    def exchange(process_group: Any, bucket: GradBucket) -> Future[Tensor]:
        exchanges["exchanges"] += 1
        return allreduce_hook(process_group, bucket)

    def prepared(*parts: Any) -> Any:
        model, *others = prepare(*parts)
        model.register_comm_hook(None, exchange)
        return model, *others

    accelerator.prepare = prepared  # type: ignore[method-assign]


def two_processes(folder: Path) -> None:
    found = {
        accumulation: run(folder / f"ddp-{accumulation}", f"optimization.accumulation={accumulation}", count=True)
        for accumulation in (1, 4)
    }
    run(folder / "ddp-anew", "optimization.activation_checkpointing=true")
    run(folder / "fsdp", fsdp=True)
    if PartialState().is_main_process:
        shutil.copytree(folder / "fsdp", folder / "stopped")
        shutil.rmtree(folder / "stopped/checkpoints/step-00000004")
        shutil.rmtree(folder / "stopped/model")
    PartialState().wait_for_everyone()
    run(folder / "stopped", fsdp=True, resume=True)
    run(folder / "fsdp-anew", "optimization.activation_checkpointing=true", fsdp=True)
    if PartialState().is_main_process:
        (folder / "exchanges.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several processes")]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model/model.safetensors")


def test_gradients_are_exchanged_once_a_step_however_many_micro_steps(runs: Path) -> None:
    assert json.loads((runs / "exchanges.json").read_text()) == {"1": {"exchanges": 4}, "4": {"exchanges": 4}}


def test_a_sharded_run_that_was_stopped_goes_on_bit_for_bit(runs: Path) -> None:
    """So does what it logs."""
    assert RunFolder(runs / "fsdp").metrics() == RunFolder(runs / "stopped").metrics()
    ours, theirs = weights(runs / "fsdp"), weights(runs / "stopped")
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_shards_in_place_of_copies_change_rounding_only(runs: Path) -> None:
    torch.testing.assert_close(weights(runs / "fsdp"), weights(runs / "ddp-1"), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("anew", "kept"), [("ddp-anew", "ddp-1"), ("fsdp-anew", "fsdp")])
def test_activations_computed_anew_change_nothing(runs: Path, anew: str, kept: str) -> None:
    ours, theirs = weights(runs / anew), weights(runs / kept)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
