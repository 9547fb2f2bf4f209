"""What a recipe for text is made of, around `train`: the tokenizer, the model, held-out sentences and the report."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.architecture import text_model_config
from delta_vae_lab.auxiliary_fit import fit_to
from delta_vae_lab.data import TextSplits, TokenizedText, heldout_batches, load_tokenizer, train_tokenizer, word_count
from delta_vae_lab.randomness import generator, seeded
from delta_vae_lab.reporting import HeldoutBound, write_report
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_samples import write_text_samples

# How many held-out sentences are judged by during training.
WATCHED_SENTENCES = 512
# Enough for a vocabulary of 32,000; all of LM1B would only take longer.
TOKENIZER_SENTENCES = 1_000_000


def run_tokenizer(
    config: TextRunConfig, text: TextSplits, run: RunFolder, accelerator: Accelerator, resume: bool = False
) -> PreTrainedTokenizerFast:
    """The run's own with `resume`, that of a model to fit to, the one that the config names, or one of its own.

    Its own is trained on the training split; a model to fit to knows the tokens of its own tokenizer alone.

    The main process makes it and tells the others. Nothing is written.
    """
    settings = config.tokenizer
    tokenizer: PreTrainedTokenizerFast | None = None
    if accelerator.is_main_process:
        if resume and (run.model / "tokenizer.json").exists():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(run.model)
        elif config.auxiliary_prior.fit_to is not None:
            tokenizer = load_tokenizer(config.auxiliary_prior.fit_to)
        elif settings.name:
            tokens = {"bos_token": settings.bos_token, "eos_token": settings.eos_token, "pad_token": settings.pad_token}
            tokenizer = load_tokenizer(settings.name, **tokens)
        else:
            tokenizer = train_tokenizer(text.training_sentences(TOKENIZER_SENTENCES), settings.vocab_size)
    told: list[PreTrainedTokenizerFast] = broadcast_object_list([tokenizer])
    return told[0]


def text_fingerprint(text: TextSplits, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What a resumed run must be given again: the text, and the tokenizer that reads it."""
    return {**text.fingerprint, "tokenizer": sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()}


def build_text_model(config: TextRunConfig, tokenizer: PreTrainedTokenizerFast) -> DeltaVaeForCausalLM:
    """The model with the initial parameters that the seed gives, but for what it takes from a trained one."""
    architecture, trained = text_model_config(config, tokenizer), config.auxiliary_prior.fit_to
    with seeded(config.seed, "parameters"):
        if trained is not None:
            return fit_to(DeltaVaeForCausalLM, trained, architecture)
        return DeltaVaeForCausalLM(architecture)


def watch_text(heldout: TokenizedText, tokenizer: PreTrainedTokenizerFast, config: TextRunConfig) -> HeldoutBound:
    """The bound on the first held-out sentences, for use during training."""
    size, pad = config.evaluation.batch_size, tokenizer.pad_token_id
    return HeldoutBound(list(heldout_batches(heldout, size, pad, limit=WATCHED_SENTENCES)), config.seed)


def write_text_report(
    model: DeltaVaeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: TextSplits,
    heldout: TokenizedText,
    config: TextRunConfig,
    run: RunFolder,
    accelerator: Accelerator,
    card: Path,
) -> str:
    """Evaluate on all held-out sentences, write everything, and give the table and verdict; `card` is a template."""
    return write_report(
        model,
        list(heldout_batches(heldout, config.evaluation.batch_size, tokenizer.pad_token_id)),
        config,
        run,
        accelerator,
        {"name": text.name, **text.fingerprint},
        card,
        lambda: write_text_samples(
            run.samples, model, tokenizer, heldout, data=text.name, generator=generator(config.seed, "samples")
        ),
        words=sum(word_count(sentence) for sentence in text.heldout[: len(heldout)]),
    )
