"""From a config to an outcome: train the model, judge it on held-out and on training examples, and probe it.

heldout: every estimate of `evaluate`; train: the bound on as many training examples; probe: accuracies of a linear
classifier; curve: held-out estimates in the course of training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from accelerate import Accelerator

from delta_vae import DeltaVaeModel
from delta_vae_lab.configuration import flatten
from delta_vae_lab.data import heldout_batches, heldout_image_batches, tokenize
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.data.labels import UNLABELLED, labelled_images, labelled_text
from delta_vae_lab.evaluation import evaluate, evaluate_bound
from delta_vae_lab.image_run import ImageTask, image_task
from delta_vae_lab.model_folder import save_model
from delta_vae_lab.probe import BATCH_SIZE, Examples, probe, reference_accuracies, text_examples
from delta_vae_lab.run_folder import RunFolder, commit, describe_device
from delta_vae_lab.sections import ImageRunConfig, RunConfig, TextRunConfig
from delta_vae_lab.text_run import TextTask, text_task

# What of the held-out estimates during training is kept.
_CURVE = ("rate", "committed_rate", "distortion", "auxiliary_rate", "mutual_information", "shuffle_gap")

_labelled_images, _labelled_text = cache(labelled_images), cache(labelled_text)


def check_labelled_text(probed: str) -> None:
    """Raise `ValueError` unless these are labelled sentences."""
    _labelled_text(probed)


def judge_images(
    config: ImageRunConfig, run: RunFolder, accelerator: Accelerator, probed: str | None, rows: int
) -> dict[str, Any]:
    """The outcome of a model of images of so many rows; `probed` are labels of the images that it is trained on."""
    task, started, resumed = image_task(config, accelerator), time.monotonic(), run.holds_a_run
    if task.processor.height != rows:
        raise ValueError(
            f"data {config.data.name!r}: has images of {task.processor.height} rows, and the rates of this experiment "
            f"are those of {rows}; give such images"
        )
    model = task.train(run, accelerator, resumed, progress=False)
    seconds = None if resumed else round(time.monotonic() - started, 3)
    size, count = config.evaluation.batch_size, len(task.heldout)
    found = _judged(
        model,
        config,
        run,
        accelerator,
        list(heldout_image_batches(task.heldout, size)),
        list(heldout_image_batches(task.train_images, size, limit=count)),
    )
    found |= {"data": {"name": task.images.name, **task.origin}, "training_seconds": seconds}
    if probed is not None and model.encoder is not None:
        found["probe"], _ = probe(model, *_image_examples(probed, task), config.seed, brief=True)
    return found


def judge_text(config: TextRunConfig, run: RunFolder, accelerator: Accelerator, probed: str | None) -> dict[str, Any]:
    """The outcome of a model of sentences; `probed` are labelled sentences, of whatever source."""
    resumed = run.holds_a_run
    task, started = text_task(config, run, accelerator, resumed), time.monotonic()
    model = task.train(run, accelerator, resumed, progress=False)
    seconds = None if resumed else round(time.monotonic() - started, 3)
    size, pad = config.evaluation.batch_size, task.tokenizer.pad_token_id
    trained_on = tokenize(
        task.tokenizer, list(task.text.training_sentences(len(task.heldout))), max_length=config.max_length
    )
    found = _judged(
        model,
        config,
        run,
        accelerator,
        list(heldout_batches(task.heldout, size, pad)),
        list(heldout_batches(trained_on, size, pad)),
        words=task.words,
    )
    found |= {"data": {"name": task.text.name, **task.text.fingerprint}, "training_seconds": seconds}
    if probed is not None and model.encoder is not None:
        found["probe"], _ = probe(model, *_text_examples(probed, task), config.seed, brief=True)
    return found


def image_references(config: ImageRunConfig, probed: str) -> dict[str, float]:
    """Accuracies of a linear classifier on the pixels, and of the commonest class."""
    return reference_accuracies(*_image_examples(probed, image_task(config, Accelerator())), config.seed)


def text_references(config: TextRunConfig, run: RunFolder, probed: str) -> dict[str, Any]:
    """Accuracies of a linear classifier on words, of the commonest class, and the labelled data; `run`: any trial's."""
    task = text_task(config, run, Accelerator(), resume=True)
    text, labels = _labelled_text(probed)
    references = reference_accuracies(*_text_examples(probed, task), config.seed)
    return {"data": text.name, "labels": labels.fingerprint, **references}


def _judged(
    model: DeltaVaeModel,
    config: RunConfig,
    run: RunFolder,
    accelerator: Accelerator,
    heldout: Sequence[Batch],
    trained_on: Sequence[Batch],
    words: int | None = None,
) -> dict[str, Any]:
    save_model(model, run.model)
    settings = config.evaluation
    return {
        "commit": commit(),
        "device": describe_device(accelerator.device, accelerator.num_processes),
        "config": flatten(config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "heldout": evaluate(
            model,
            heldout,
            words=words,
            seed=config.seed,
            importance_samples=settings.importance_samples,
            importance_examples=settings.importance_examples,
        ),
        "train": evaluate_bound(model, trained_on, seed=config.seed),
        "probe": {},
        "curve": _curve(run.metrics()),
    }


def _image_examples(probed: str, task: ImageTask) -> tuple[Examples, Examples]:
    """The training and the held-out images with their labels, as a model reads them."""
    images, labels = _labelled_images(probed)
    if len(images.train) != len(task.train_images):
        raise ValueError(
            f"probe of {probed}: its images are not those that the model is trained on; give the same data"
        )

    def examples(levels: Any, classes: Any) -> Examples:
        levels, classes = levels[classes != UNLABELLED], classes[classes != UNLABELLED]
        return Examples(list(heldout_image_batches(levels, BATCH_SIZE)), levels, classes, {})

    heldout = len(task.heldout)
    return examples(task.train_images, labels.train), examples(task.heldout, labels.heldout[:heldout])


def _text_examples(probed: str, task: TextTask) -> tuple[Examples, Examples]:
    text, labels = _labelled_text(probed)
    assert isinstance(text.train, list)
    longest = task.config.max_length
    parts = ((text.train, labels.train), (text.heldout, labels.heldout))
    train, heldout = (text_examples(task.tokenizer, *part, longest=longest) for part in parts)
    return train, heldout


def _curve(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The held-out estimates in the course of training, in nats."""
    return [
        {"step": row["step"]}
        | {f"{name}_nats": row[f"heldout_{name}_nats"] for name in _CURVE if f"heldout_{name}_nats" in row}
        for row in rows
        if "heldout_distortion_nats" in row
    ]
