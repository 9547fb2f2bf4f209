"""What a recipe for text is made of, around `train`: the tokenizer, the model, held-out estimates and the report."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.architecture import model_config
from delta_vae_lab.cards import write_card
from delta_vae_lab.configuration import RunConfig
from delta_vae_lab.data import TextSplits, TokenizedText, heldout_batches, load_tokenizer, train_tokenizer, word_count
from delta_vae_lab.evaluation import evaluate_bound, evaluate_text
from delta_vae_lab.figures import write_figures
from delta_vae_lab.measurement import measure, rate_profile
from delta_vae_lab.randomness import derive_seed
from delta_vae_lab.run_folder import RunFolder, describe_device
from delta_vae_lab.samples import write_samples
from delta_vae_lab.verdict import render_table, verdict

# Enough for a vocabulary of 32,000; all of LM1B would only take longer.
TOKENIZER_SENTENCES = 1_000_000


def run_tokenizer(
    config: RunConfig, text: TextSplits, run: RunFolder, accelerator: Accelerator, resume: bool = False
) -> PreTrainedTokenizerFast:
    """With `resume` the run's own tokenizer; else the one that the config names, or one trained on the training split.

    The main process makes it and tells the others. Nothing is written.
    """
    settings = config.tokenizer
    tokenizer: PreTrainedTokenizerFast | None = None
    if accelerator.is_main_process:
        if resume and (run.model / "tokenizer.json").exists():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(run.model)
        elif settings.name:
            tokens = {"bos_token": settings.bos_token, "eos_token": settings.eos_token, "pad_token": settings.pad_token}
            tokenizer = load_tokenizer(settings.name, **tokens)
        else:
            tokenizer = train_tokenizer(text.training_sentences(TOKENIZER_SENTENCES), settings.vocab_size)
    told: list[PreTrainedTokenizerFast] = broadcast_object_list([tokenizer])
    return told[0]


def fingerprint(text: TextSplits, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What a resumed run must be given again: the text, and the tokenizer that reads it."""
    return {**text.fingerprint, "tokenizer": sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()}


def build_model(config: RunConfig, tokenizer: PreTrainedTokenizerFast) -> DeltaVaeForCausalLM:
    """The model with the initial parameters that the seed gives."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(config.seed, "parameters"))
        return DeltaVaeForCausalLM(model_config(config, tokenizer))


class HeldoutBound:
    """`evaluate` of `train`: the bound on the first `sentences` of the held-out text, every name led by `heldout_`."""

    def __init__(self, heldout: TokenizedText, config: RunConfig, sentences: int = 512) -> None:
        self.heldout, self.config, self.sentences = heldout, config, sentences

    def __call__(self, model: DeltaVaeForCausalLM, step: int) -> dict[str, float]:
        pad = model.config.decoder.pad_token_id
        batches = heldout_batches(self.heldout, self.config.evaluation.batch_size, pad, limit=self.sentences)
        metrics = evaluate_bound(model, batches, seed=self.config.seed)
        return {f"heldout_{name}": value for name, value in metrics.items()}


def write_report(
    model: DeltaVaeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: TextSplits,
    heldout: TokenizedText,
    config: RunConfig,
    run: RunFolder,
    accelerator: Accelerator,
    card: Path,
) -> str:
    """Evaluate on all held-out sentences, write everything, and give the table and verdict; `card` is a template."""
    started = time.monotonic()
    settings = config.evaluation
    model.save_pretrained(run.model)
    batches = list(heldout_batches(heldout, settings.batch_size, tokenizer.pad_token_id))
    metrics = evaluate_text(
        model,
        batches,
        words=sum(word_count(sentence) for sentence in text.heldout[: len(heldout)]),
        seed=config.seed,
        importance_samples=settings.importance_samples,
        importance_sentences=settings.importance_sentences,
    )
    metrics |= {
        "steps": config.optimization.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "evaluation_seconds": round(time.monotonic() - started, 1),
    }
    device = describe_device(accelerator.device, accelerator.num_processes)
    run.write_results(metrics, config, device, {"name": text.name, **text.fingerprint})
    write_card(run, card)
    profile = rate_profile(model, measure(model, batches, config.seed)) if model.prior is not None else None
    write_figures(run.figures, run.metrics(), profile, data=text.name, seed=config.seed)
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "samples"))
    write_samples(run.samples, model, tokenizer, heldout, data=text.name, generator=generator)
    table = render_table(metrics, data=text.name, seed=config.seed)
    return f"\n{table}\n\n{verdict(metrics)}\n\nEverything is in {run.path}; the model is in {run.model}."
