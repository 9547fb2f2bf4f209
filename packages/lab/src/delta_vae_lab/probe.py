"""Linear probes: what class of its data a linear classifier can tell from a frozen model's latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from json import dumps
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeForImageGeneration
from delta_vae_lab.data import TextBatch, heldout_batches, heldout_image_batches, load_tokenizer, tokenize
from delta_vae_lab.data.image_batches import ImageBatch
from delta_vae_lab.data.labels import UNLABELLED, Classes, Labels, labelled_images, labelled_text
from delta_vae_lab.encoding import Posteriors, encode
from delta_vae_lab.estimates import Estimate, mean
from delta_vae_lab.modality import IMAGES, TEXT, Modality
from delta_vae_lab.places import check_folder
from delta_vae_lab.randomness import derive_seed
from delta_vae_lab.run_folder import describe_device, provenance
from delta_vae_lab.saved_model import SavedModel, check_images_of, load_model, load_processor
from delta_vae_lab.sections import RunConfig

Features = Any  # (N, features), a numpy array or a sparse matrix

BATCH_SIZE = 64
# Inverse strengths of the classifier's L2 penalty.
REGULARISATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
CHOICE_ONE_IN = 5  # of the training labels of each class: what the strength is chosen on
WORDS_AND_SIGNS = r"\w+|[^\w\s]"

_ROWS = {
    "pooled": "posterior means, mean over steps",
    "pooled_sample": "one draw of z, mean over steps",
    "concatenated": "posterior means, all steps",
    "concatenated_sample": "one draw of z, all steps",
    "pixels": "pixels",
    "bag_of_words": "bag of words",
    "majority": "the commonest class",
}


@dataclass(frozen=True)
class Examples:
    """One split, as the model reads it (`batches`) and as the reference does (`raw`: levels (N, C, H, W) or sentences).

    labels: (N,). left_out: how many examples of the split have no label, or are longer than the model reads.
    """

    batches: Sequence[TextBatch | ImageBatch]
    raw: Any
    labels: Classes
    left_out: dict[str, int]


@dataclass(frozen=True)
class LinearProbe:
    """Accuracy on held-out examples; the regularisation chosen, 1 / strength; whether every fit came to its end."""

    accuracy: Estimate
    regularisation: float
    converged: bool


def run_probe(
    model: str,
    data: str,
    *,
    label_column: str | None = None,
    output: Path | None = None,
    seed: int = 0,
    train_limit: int | None = None,
    json: bool = False,
) -> dict[str, Any]:
    """Probe a saved model on labelled data, print a table, or with `json` the result, and write OUTPUT/probe.json.

    model: the folder of a model with its tokenizer or image processor, or its name on the Hub. data, label_column: as
    in `labelled_images` and `labelled_text`. train_limit: as many labelled training examples, drawn by the seed.
    """
    if train_limit is not None and train_limit < 1:
        raise ValueError(f"train_limit={train_limit}: must be at least 1; or leave it out for all training examples")
    if output is not None:
        check_folder(output)
    subject = _load(model)
    read = _read_images if isinstance(subject, DeltaVaeForImageGeneration) else _read_text
    modality, origin, labels, train, heldout = read(model, subject, data, label_column, train_limit, seed)
    check_labels(train.labels, heldout.labels, labels)
    metrics, left_out = probe(subject, train, heldout, seed)
    result = {
        "model": model,
        **provenance(RunConfig(seed=seed), describe_device(subject.device, 1)),
        "data": {**origin, "labels": labels.fingerprint},
        "modality": modality.examples,
        "train_left_out": train.left_out,
        "heldout_left_out": heldout.left_out,
        "readings_left_out": left_out,
        "metrics": metrics,
    }
    result["versions"] |= {"scikit-learn": metadata.version("scikit-learn")}
    print(dumps(result, indent=2, allow_nan=False) if json else render(result))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        partial = output / "probe.json.partial"
        partial.write_text(dumps(result, indent=2, allow_nan=False) + "\n")
        partial.replace(output / "probe.json")
    return result


def probe(
    model: SavedModel, train: Examples, heldout: Examples, seed: int, *, brief: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Accuracies of every reading of the latents and of the references, and why a reading is left out.

    brief: without the steps one by one and without the references, which are the same of every model.

    `..._accuracy` with `..._accuracy_stderr`, over held-out examples, and `..._regularisation`; of `per_step` a list
    each. A posterior mean is exact: it may separate classes by far less than the posterior's own noise, which hides
    them from a decoder. So beside the means stands a draw of z, which is what the decoder gets.
    """
    told = [
        encode(model, part.batches, derive_seed(seed, name), purpose="probe") for name, part in _named(train, heldout)
    ]
    features, left_out = _readings(*told)
    if brief:
        features = {name: pair for name, pair in features.items() if not name.startswith("step_")}
    else:
        features |= _references(train, heldout)
    probes = _probes(features, train, heldout, seed)
    metrics: dict[str, Any] = {"train_examples": len(train.labels), "heldout_examples": len(heldout.labels)}
    steps = {name: probes.pop(name) for name in list(probes) if name.startswith("step_")}
    for name, found in probes.items():
        metrics |= found.accuracy.named(f"{name}_accuracy") | {f"{name}_regularisation": found.regularisation}
    if steps:
        columns = [found.accuracy.named("per_step_accuracy") for found in steps.values()]
        metrics |= {name: [column[name] for column in columns] for name in columns[0]}
        metrics["per_step_regularisation"] = [found.regularisation for found in steps.values()]
    if not brief:
        metrics |= majority(train.labels, heldout.labels).named("majority_accuracy")
    return metrics | {"unconverged": [name for name, p in (probes | steps).items() if not p.converged]}, left_out


def reference_accuracies(train: Examples, heldout: Examples, seed: int) -> dict[str, float]:
    """What a linear classifier tells from the data themselves, and the commonest class, with standard errors."""
    probes = _probes(_references(train, heldout), train, heldout, seed)
    accuracies = {name: found.accuracy for name, found in probes.items()}
    accuracies["majority"] = majority(train.labels, heldout.labels)
    return {key: v for name, found in accuracies.items() for key, v in found.named(f"{name}_accuracy").items()}


def linear_probe(
    train: Features,
    train_labels: Classes,
    heldout: Features,
    heldout_labels: Classes,
    *,
    seed: int = 0,
    standardise: bool = True,
) -> LinearProbe:
    """A logistic regression on features (N, features), scaled to unit variance, judged by held-out ones.

    How strongly it is regularised is chosen on a fifth of the training examples, by their likelihood under a fit to the
    rest (of their few errors many strengths make equally many); then it is fitted to all. Held-out examples only judge.
    """
    choice = _every_fifth(train_labels, seed)
    fits = {c: _fit(train[~choice], train_labels[~choice], c, standardise) for c in REGULARISATIONS}
    best = max(REGULARISATIONS, key=lambda c: _log_likelihood(fits[c], train[choice], train_labels[choice]))
    final = _fit(train, train_labels, best, standardise)
    correct = torch.from_numpy(final.predict(heldout) == heldout_labels).double()
    return LinearProbe(mean(correct), best, all(map(_has_converged, (fits[best], final))))


def majority(train_labels: Classes, heldout_labels: Classes) -> Estimate:
    """Chance: the accuracy of always naming the commonest class of the training examples."""
    commonest = np.bincount(train_labels).argmax()
    return mean(torch.from_numpy(heldout_labels == commonest).double())


def check_labels(train: Classes, heldout: Classes, labels: Labels) -> None:
    """Raise `ValueError` unless there is something to tell apart, and more examples of it than classes."""
    for split, classes in (("training", train), ("held-out", heldout)):
        present = np.unique(classes)
        if len(present) < 2:
            named = f"all {labels.names[present[0]]!r}" if len(present) else "none"
            raise ValueError(
                f"label_column={labels.column!r}: of {len(classes)} usable {split} labels, {named}: a probe tells "
                "classes apart, so give data with two or more in either split, shuffled if they lie class by class"
            )
    if len(train) <= len(np.unique(train)):
        raise ValueError(
            f"{len(train)} training labels of {len(np.unique(train))} classes: a classifier needs more examples than "
            "classes; raise train_limit or give more data"
        )


def render(result: dict[str, Any]) -> str:
    """The result of `run_probe` as a table."""
    metrics, data, kind = result["metrics"], result["data"], result["modality"]
    split = f"{metrics['train_examples']:,} training and {metrics['heldout_examples']:,} held-out {kind}"
    classes = f"{len(data['labels']['classes'])} classes of {data['labels']['column']!r}"
    lines = [f"Linear probes of {result['model']}", f"{data['name']}: {classes}, {split}, seed {result['seed']}", ""]
    width = max(map(len, _ROWS.values()))
    for name, row in _ROWS.items():
        if f"{name}_accuracy" in metrics:
            lines.append(f"{row:<{width}}  {Estimate.of(metrics, f'{name}_accuracy')}")
    steps = metrics.get("per_step_accuracy", [])
    for first in range(0, len(steps), 8):
        row = f"posterior means, steps {first + 1} to {min(first + 8, len(steps))}"
        lines.append(f"{row:<{width}}  {' '.join(f'{value:.3f}' for value in steps[first : first + 8])}")
    lines += ["", "Accuracy on held-out examples ± standard error; classifiers are fitted to training examples alone."]
    for split in ("train", "heldout"):
        for reason, count in result[f"{split}_left_out"].items():
            lines.append(f"{count:,} {split} {kind} left out: {reason}.")
    if unreadable := data.get("unreadable"):
        lines.append(f"{unreadable:,} images left out: they cannot be read.")
    lines += [f"No {name} reading: {reason}." for name, reason in result["readings_left_out"].items()]
    if metrics["unconverged"]:
        lines.append(f"Stopped before it converged: {', '.join(metrics['unconverged'])}.")
    return "\n".join(lines)


def _load(name: str) -> SavedModel:
    model = load_model(name)
    if model.encoder is None:
        raise ValueError(
            f"model={name}: has no encoder, so no latents to probe; give a model whose prior.kind is not none"
        )
    return model


Read = tuple[Modality, dict[str, Any], Labels, Examples, Examples]


def _read_images(name: str, _: SavedModel, spec: str, column: str | None, limit: int | None, seed: int) -> Read:
    processor = load_processor(name)
    images, labels = labelled_images(spec, column)
    check_images_of(processor, name, images, spec)

    def examples(levels: npt.NDArray[np.uint8], classes: Classes, limit: int | None) -> Examples:
        rows = _limited(np.flatnonzero(classes != UNLABELLED), limit, seed)
        levels = processor.quantize(levels[rows])
        return Examples(
            list(heldout_image_batches(levels, BATCH_SIZE)), levels, classes[rows], _left_out(classes, None)
        )

    train, heldout = examples(images.train, labels.train, limit), examples(images.heldout, labels.heldout, None)
    return IMAGES, {"name": images.name, **images.fingerprint}, labels, train, heldout


def _read_text(name: str, model: SavedModel, spec: str, column: str | None, limit: int | None, seed: int) -> Read:
    tokenizer = load_tokenizer(name)
    text, labels = labelled_text(spec, column)
    longest = model.config.decoder.max_positions
    assert isinstance(text.train, list)
    train, heldout = (
        text_examples(tokenizer, sentences, classes, longest=longest, limit=most, seed=seed)
        for sentences, classes, most in ((text.train, labels.train, limit), (text.heldout, labels.heldout, None))
    )
    return TEXT, {"name": text.name, **text.fingerprint}, labels, train, heldout


def text_examples(
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[str],
    classes: Classes,
    *,
    longest: int,
    limit: int | None = None,
    seed: int = 0,
) -> Examples:
    """The labelled sentences of at most `longest` predicted tokens, or `limit` of them."""
    fits = tokenize(tokenizer, sentences).lengths <= longest
    rows = _limited(np.flatnonzero(fits & (classes != UNLABELLED)), limit, seed)
    kept = [sentences[row] for row in rows]
    batches = list(heldout_batches(tokenize(tokenizer, kept), BATCH_SIZE, tokenizer.pad_token_id))
    return Examples(batches, kept, classes[rows], _left_out(classes, fits, longest))


def _left_out(classes: Classes, fits: npt.NDArray[np.bool_] | None, longest: int | None = None) -> dict[str, int]:
    counts = {"no label": int(np.sum(classes == UNLABELLED))}
    if fits is not None:
        counts[f"longer than the model's {longest} tokens"] = int(np.sum(~fits & (classes != UNLABELLED)))
    return {reason: count for reason, count in counts.items() if count}


def _limited(rows: npt.NDArray[np.int64], limit: int | None, seed: int) -> npt.NDArray[np.int64]:
    """`limit` of the rows, drawn by the seed, in their order; None is all."""
    rng = np.random.default_rng(derive_seed(seed, "probe limit"))
    return np.sort(rng.permutation(rows)[:limit])


def _named(train: Examples, heldout: Examples) -> Iterator[tuple[str, Examples]]:
    yield from (("train", train), ("heldout", heldout))


def _probes(
    features: dict[str, tuple[Features, Features]], train: Examples, heldout: Examples, seed: int
) -> dict[str, LinearProbe]:
    return {
        name: linear_probe(x, train.labels, y, heldout.labels, seed=seed, standardise=name != "bag_of_words")
        for name, (x, y) in features.items()
    }


def _readings(train: Posteriors, heldout: Posteriors) -> tuple[dict[str, tuple[Features, Features]], dict[str, str]]:
    """Features (N, features) of both splits by reading, and why others are not defined."""
    pairs = {
        "pooled": (train.pooled(train.mean), heldout.pooled(heldout.mean)),
        "pooled_sample": (train.pooled(train.z), heldout.pooled(heldout.z)),
    }
    left_out = {}
    steps = {part.mean.shape[1] for part in (train, heldout) if part.mask.all()}
    if len(steps) == 1 and train.mask.all() and heldout.mask.all():
        pairs["concatenated"] = (train.mean.flatten(1), heldout.mean.flatten(1))
        pairs["concatenated_sample"] = (train.z.flatten(1), heldout.z.flatten(1))
        pairs |= {f"step_{t + 1}": (train.mean[:, t], heldout.mean[:, t]) for t in range(steps.pop())}
    else:
        left_out = dict.fromkeys(("concatenated", "per_step"), "the sentences have several lengths")
    return {name: (x.numpy(), y.numpy()) for name, (x, y) in pairs.items()}, left_out


def _references(train: Examples, heldout: Examples) -> dict[str, tuple[Features, Features]]:
    """Features of the data themselves: pixels, or how often each word of the training sentences occurs."""
    if isinstance(train.raw, np.ndarray):
        pixels = (part.raw.reshape(len(part.raw), -1).astype(np.float32) for part in (train, heldout))
        return {"pixels": (next(pixels), next(pixels))}
    words = CountVectorizer(token_pattern=WORDS_AND_SIGNS, dtype=np.float64)
    return {"bag_of_words": (words.fit_transform(train.raw), words.transform(heldout.raw))}


def _every_fifth(labels: Classes, seed: int) -> npt.NDArray[np.bool_]:
    """A fifth of each class, at least one if it has two or more: (N,)."""
    rng = np.random.default_rng(derive_seed(seed, "probe choice"))
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        chosen[rows[: max(len(rows) // CHOICE_ONE_IN, min(1, len(rows) - 1))]] = True
    return chosen


def _fit(features: Features, labels: Classes, regularisation: float, standardise: bool) -> Any:
    regression = LogisticRegression(C=regularisation, max_iter=1000)
    classifier = make_pipeline(StandardScaler(), regression) if standardise else make_pipeline(regression)
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)  # which the result says
        return classifier.fit(features, labels)


def _log_likelihood(classifier: Any, features: Features, labels: Classes) -> float:
    """Mean log p(class | features) of (N,) labels, in nats."""
    columns = np.searchsorted(classifier.classes_, labels)
    probabilities = classifier.predict_proba(features)[np.arange(len(labels)), columns]
    return float(np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny)).mean())


def _has_converged(classifier: Any) -> bool:
    regression = classifier[-1]
    return bool((regression.n_iter_ < regression.max_iter).all())
