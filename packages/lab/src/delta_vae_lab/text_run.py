"""A recipe for text from the command line to the report: what `recipes/lm1b.py` does."""

from __future__ import annotations

import shutil
from argparse import Namespace
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.architecture import text_model_config
from delta_vae_lab.auxiliary_fit import fit_to
from delta_vae_lab.data import (
    TextSplits,
    TokenizedText,
    heldout_batches,
    load_text,
    load_tokenizer,
    tokenize,
    train_tokenizer,
    word_count,
)
from delta_vae_lab.model_folder import save_reader, verify_reader
from delta_vae_lab.publishing import publish
from delta_vae_lab.randomness import generator, seeded
from delta_vae_lab.recipe import begin, life_of
from delta_vae_lab.reporting import HeldoutBound, write_report
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.storage import writing
from delta_vae_lab.text_samples import write_text_samples
from delta_vae_lab.tracking import show_results
from delta_vae_lab.training import Batches, train

# How many held-out sentences are judged by during training.
WATCHED_SENTENCES = 512
# Enough for a vocabulary of 32,000; all of LM1B would only take longer.
TOKENIZER_SENTENCES = 1_000_000


def run_text(arguments: Namespace, recipe: Path) -> None:
    """Parse, load, build, train, evaluate, write: a run of the recipe in this file, with presets of its name."""
    config, run, accelerator = begin(TextRunConfig, arguments, recipe)
    with life_of(run, accelerator):
        task = text_task(config, run, accelerator, arguments.resume)
        model = task.train(run, accelerator, arguments.resume)
        if accelerator.is_main_process:
            with writing("the report", run.path):
                print(write_text_report(model, task, run, accelerator))
            show_results(accelerator, run)
            if arguments.push_to_hub is not None:
                print(f"Published: {publish(run.path, arguments.push_to_hub)}")


@dataclass(frozen=True)
class TextTask:
    """What a config asks to be trained: its sentences, and the model with its initial parameters.

    heldout: those sentences that the evaluation takes, as tokens.
    """

    config: TextRunConfig
    text: TextSplits
    tokenizer: PreTrainedTokenizerFast
    heldout: TokenizedText
    batches: Batches
    model: DeltaVaeForCausalLM

    @property
    def origin(self) -> dict[str, Any]:
        """What a resumed run must be given again."""
        return text_fingerprint(self.text, self.tokenizer)

    @property
    def words(self) -> int:
        """The running words of the held-out sentences."""
        return sum(word_count(sentence) for sentence in self.text.heldout[: len(self.heldout)])

    def train(
        self, run: RunFolder, accelerator: Accelerator, resume: bool, progress: bool = True
    ) -> DeltaVaeForCausalLM:
        """Start or resume the run, and train it to its end."""
        if accelerator.is_main_process:
            run.start(self.config, resume)
            save_tokenizer(self.tokenizer, run)
        watched = watch_text(self.heldout, self.tokenizer, self.config)
        return train(self.model, self.batches, self.config, accelerator, run, watched, resume, self.origin, progress)


def text_task(config: TextRunConfig, run: RunFolder, accelerator: Accelerator, resume: bool) -> TextTask:
    """Read the text, make or load the tokenizer and build the model. Nothing is written."""
    source = config.data
    text = load_text(
        source.name,
        streaming=source.streaming,
        config=source.config,
        revision=source.revision,
        column=source.column,
    )
    tokenizer = run_tokenizer(config, text, run, accelerator, resume)
    return TextTask(
        config=config,
        text=text,
        tokenizer=tokenizer,
        heldout=tokenize(tokenizer, text.heldout[: config.evaluation.examples], max_length=config.max_length),
        batches=text.training_batches(
            tokenizer,
            batch_size=config.optimization.batch_size,
            seed=config.seed,
            max_length=config.max_length,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        ),
        model=build_text_model(config, tokenizer),
    )


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
            verify_reader(run.model)
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


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, run: RunFolder) -> None:
    """Put it into the run's model/, `tokenizer.json` last: where that is, all of it is, and a resumed run reads it."""
    if (run.model / "tokenizer.json").exists():
        return
    run.model.mkdir(exist_ok=True)
    aside = run.path / ".tokenizer.partial"
    shutil.rmtree(aside, ignore_errors=True)  # a kill may have left one
    save_reader(tokenizer, aside)
    for file in sorted(aside.iterdir(), key=lambda file: file.name == "tokenizer.json"):
        file.replace(run.model / file.name)
    aside.rmdir()


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


def write_text_report(model: DeltaVaeForCausalLM, task: TextTask, run: RunFolder, accelerator: Accelerator) -> str:
    """Evaluate on all held-out sentences, write everything, and give the table and verdict."""
    config, tokenizer = task.config, task.tokenizer
    return write_report(
        model,
        list(heldout_batches(task.heldout, config.evaluation.batch_size, tokenizer.pad_token_id)),
        config,
        run,
        accelerator,
        {"name": task.text.name, **task.text.fingerprint},
        lambda: write_text_samples(
            run.samples,
            model,
            tokenizer,
            task.heldout,
            data=task.text.name,
            generator=generator(config.seed, "samples"),
        ),
        words=task.words,
    )
