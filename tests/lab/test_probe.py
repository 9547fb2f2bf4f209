"""Linear probes against scikit-learn called directly, and on models whose posteriors are known."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_core import EncoderOutput
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.data import train_tokenizer
from delta_vae_lab.data.labels import Labels
from delta_vae_lab.data.text_batches import heldout_batches
from delta_vae_lab.data.tokens import TokenizedText
from delta_vae_lab.encoding import encode
from delta_vae_lab.probe import Examples, check_labels, linear_probe, majority, probe, run_probe
from delta_vae_priors import AR1PriorConfig

PAD, BOS, EOS, VOCABULARY, D = 0, 1, 2, 12, 3
CLASSES = 3


class KnownEncoder(nn.Module):
    """A posterior mean of `gain` times the one-hot class of a sentence, whose every word is a multiple of 3 + class."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor, mask: Tensor) -> EncoderOutput:
        means = self.gain * nn.functional.one_hot(x[:, :1].expand_as(x) % CLASSES, CLASSES).float()
        return EncoderOutput(statistics=torch.cat((means, torch.zeros_like(means)), -1), mask=mask.bool())


def text_model(gain: float | None = None, *, latents: bool = True, vocabulary: int = VOCABULARY) -> DeltaVaeForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": vocabulary, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
    sizes |= {"max_positions": 24}
    tokens = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    decoder = TextDecoderConfig(**sizes, **tokens, latent_dim=D if latents else 0)
    if not latents:
        return DeltaVaeForCausalLM(DeltaVaeConfig(decoder=decoder)).eval()
    encoder = TextEncoderConfig(**sizes, latent_dim=D, statistics_std=1.0)
    prior = AR1PriorConfig(latent_dim=D, alpha=0.5)
    model = DeltaVaeForCausalLM(DeltaVaeConfig(prior=prior, encoder=encoder, decoder=decoder))
    if gain is not None:
        model.encoder = KnownEncoder(gain)
    return model.eval()


def examples(count: int, seed: int, lengths: tuple[int, int] = (5, 6)) -> Examples:
    """Sentences whose every word gives away the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    words = [3 * rng.integers(1, 4, rng.integers(*lengths)) + label for label in labels]
    rows = [np.array([BOS, *row, EOS], dtype=np.int32) for row in words]
    text = TokenizedText(np.concatenate(rows), np.cumsum([0] + [len(row) for row in rows]))
    raw = [" ".join(f"w{word}" for word in row) for row in words]
    return Examples(list(heldout_batches(text, 7, PAD)), raw, labels, {})


def test_a_mean_that_is_a_linear_function_of_the_class_is_read_without_error() -> None:
    metrics, left_out = probe(text_model(gain=1.0), examples(90, 0), examples(60, 1), seed=0)
    for name in ("pooled", "concatenated", "bag_of_words"):
        assert metrics[f"{name}_accuracy"] == 1, name
        assert metrics[f"{name}_accuracy_stderr"] == 0
    assert metrics["per_step_accuracy"] == [1.0] * 6
    assert (metrics["train_examples"], metrics["heldout_examples"]) == (90, 60)
    assert left_out == {}


def test_shuffled_labels_are_chance() -> None:
    train, heldout = examples(300, 0), examples(300, 1)
    rng = np.random.default_rng(2)
    train, heldout = (
        Examples(part.batches, part.raw, rng.permutation(part.labels), part.left_out) for part in (train, heldout)
    )
    metrics, _ = probe(text_model(gain=1.0), train, heldout, seed=0)
    for name in ("pooled", "pooled_sample", "concatenated", "concatenated_sample", "bag_of_words"):
        assert metrics[f"{name}_accuracy"] == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 300)), name


def test_what_the_noise_of_the_posterior_hides_shows_in_the_means_alone() -> None:
    metrics, _ = probe(text_model(gain=1e-4), examples(300, 0), examples(300, 1), seed=0)
    assert metrics["pooled_accuracy"] == 1
    for name in ("pooled_sample", "concatenated_sample"):
        assert metrics[f"{name}_accuracy"] == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 300)), name


def test_latents_are_those_of_each_sentence_alone() -> None:
    model, part = text_model(), examples(20, 0, lengths=(1, 9))
    told = encode(model, part.batches, seed=0, purpose="probe")
    for batch in part.batches:
        for row, ids, mask in zip(batch.rows, batch.input_ids, batch.attention_mask, strict=True):
            with torch.no_grad():
                alone = model.encode(ids[: mask.sum()][None]).mean[0]
            torch.testing.assert_close(told.mean[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(told.pooled(told.mean)[row], alone.mean(0), atol=1e-5, rtol=1e-5)
            assert told.mask[row].sum() == len(alone)
            assert not told.mean[row, len(alone) :].any()


def test_a_draw_scatters_about_the_mean_as_the_posterior_does() -> None:
    """The mean of 6 independent steps of scale s_t scatters by sqrt(sum_t s_t^2) / 6 in each dimension."""
    model, part = text_model(gain=0.0), examples(400, 0)
    told = encode(model, part.batches, seed=0, purpose="probe")
    scale = model.encode(**part.batches[0].inputs()).log_scale[0].exp()
    expected = scale.square().sum(0).sqrt() / 6
    torch.testing.assert_close(told.pooled(told.z).std(0), expected, atol=0, rtol=4 / math.sqrt(800))


def test_sentences_of_several_lengths_are_read_by_their_pooled_latents_alone() -> None:
    metrics, left_out = probe(text_model(gain=1.0), examples(60, 0, (1, 9)), examples(40, 1, (1, 9)), seed=0)
    assert metrics["pooled_accuracy"] == 1
    assert left_out == dict.fromkeys(("concatenated", "per_step"), "the sentences have several lengths")
    assert not {name for name in metrics if name.startswith(tuple(left_out))}


def test_the_classifier_is_scikit_learns_with_the_regularisation_that_is_reported() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 5)) * [1, 10, 100, 1, 1]
    labels = (features[:, 0] + features[:, 1] / 10 + rng.normal(size=300) > 0).astype(np.int64)
    train, heldout = slice(200), slice(200, None)
    found = linear_probe(features[train], labels[train], features[heldout], labels[heldout], seed=3)
    direct = make_pipeline(StandardScaler(), LogisticRegression(C=found.regularisation))
    accuracy = direct.fit(features[train], labels[train]).score(features[heldout], labels[heldout])
    assert found.accuracy.value == pytest.approx(accuracy)
    assert found.accuracy.stderr == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 99))
    assert found.converged


def test_useless_features_are_regularised_away_and_useful_ones_are_not() -> None:
    """40 features of which one tells, for 60 examples, and that one alone."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=1060)
    features = rng.normal(size=(1060, 40))
    features[:, 0] += 4 * labels
    noisy = linear_probe(features[:60], labels[:60], features[60:], labels[60:])
    clean = linear_probe(1e-3 * features[:60, :1], labels[:60], 1e-3 * features[60:, :1], labels[60:])
    assert noisy.regularisation < clean.regularisation
    assert clean.accuracy.value == pytest.approx(0.977, abs=0.02), "Phi(2), whatever the scale of a feature"


def test_chance_is_the_commonest_class_of_the_training_labels() -> None:
    chance = majority(np.array([0, 1, 1]), np.array([0, 0, 0, 1]))
    assert chance.value == pytest.approx(0.25)


def named(count: int) -> Labels:
    return Labels(np.zeros(0), np.zeros(0), tuple("abcdefgh"[:count]), "kind")


@pytest.mark.parametrize(
    ("train", "heldout", "message"),
    [
        (
            [1, 1, 1],
            [0, 1],
            r"label_column='kind': of 3 usable training labels, all 'b': .* give data with two or more",
        ),
        ([0, 1, 1], [0, 0], r"label_column='kind': of 2 usable held-out labels, all 'a': .* shuffled if they lie"),
        ([], [0, 1], r"of 0 usable training labels, none"),
        ([0, 1, 2], [0, 1], r"3 training labels of 3 classes: .* more examples than classes; raise train_limit"),
    ],
)
def test_labels_that_a_probe_cannot_use(train: list[int], heldout: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_labels(np.array(train, dtype=np.int64), np.array(heldout, dtype=np.int64), named(3))
    assert "\n" not in str(error.value)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A saved model of the digits, not trained."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "levels": 17, "hidden_size": 8, "num_layers": 1}
    shape |= {"latent_dim": 2, "attention_layers": 0, "num_heads": 2}
    model = DeltaVaeForImageGeneration(
        DeltaVaeConfig(
            prior=AR1PriorConfig(latent_dim=2, alpha=0.5),
            encoder=ImageEncoderConfig(**shape),
            decoder=ImageDecoderConfig(**shape, components=2),
        )
    )
    model.save_pretrained(tmp_path / "images")
    DeltaVaeImageProcessor.for_model(model.config, input_levels=17).save_pretrained(tmp_path / "images")
    return tmp_path / "images"


def test_a_saved_image_model_is_probed_on_the_digits(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_probe(str(image_folder), "builtin", output=tmp_path / "out", train_limit=200, seed=5)
    table = capsys.readouterr().out
    assert json.loads((tmp_path / "out/probe.json").read_text()) == result

    digits, metrics = load_digits(), result["metrics"]
    chosen = np.random.default_rng(0)  # which 200 is for the seed to say; how well pixels do is known within errors
    rows = chosen.permutation(1415)[:200]
    direct = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(digits.data[rows], digits.target[rows])
    expected = direct.score(digits.data[1415:], digits.target[1415:])
    assert metrics["pixels_accuracy"] == pytest.approx(expected, abs=0.06)
    assert metrics["majority_accuracy"] < 0.15
    assert (metrics["train_examples"], metrics["heldout_examples"]) == (200, 382)
    assert len(metrics["per_step_accuracy"]) == len(metrics["per_step_regularisation"]) == 8
    assert metrics["concatenated_accuracy"] > metrics["majority_accuracy"]
    assert result["seed"] == 5
    assert result["data"]["labels"]["classes"] == list("0123456789")
    assert {"command", "commit", "device", "model"} < result.keys()
    assert {"scikit-learn", "torch"} < result["versions"].keys()
    assert "10 classes of 'target', 200 training and 382 held-out images, seed 5" in table
    assert "posterior means, steps 1 to 8" in table


@pytest.fixture
def reviews(tmp_path: Path) -> Callable[..., str]:
    """Write sentences and labels as parquet files, of which every third sentence is long and the last has no label."""

    def write(labels: list[int], name: str = "reviews", feature: Any = None) -> str:
        for split, count in (("train", len(labels)), ("test", len(labels) // 2)):
            texts = [("good " if label else "bad ") + "film " * (9 if i % 3 else 2) for i, label in enumerate(labels)]
            columns = {"text": texts[:count], "label": [*labels[: count - 1], -1]}
            kinds = Features({"text": Value("string"), "label": feature or ClassLabel(names=["bad", "good"])})
            (tmp_path / name).mkdir(exist_ok=True)
            Dataset.from_dict(columns, features=kinds).to_parquet(tmp_path / name / f"{split}.parquet")
        return str(tmp_path / name)

    return write


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """A saved model that reads at most 24 bytes."""
    tokenizer = train_tokenizer(["good film", "bad film"], 259)
    text_model(vocabulary=259).save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    return tmp_path / "text"


def test_long_and_unlabelled_sentences_are_left_out_and_counted(
    text_folder: Path, reviews: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_probe(str(text_folder), reviews([0, 1] * 30), json=True)
    assert json.loads(capsys.readouterr().out) == result
    metrics = result["metrics"]
    assert (metrics["train_examples"], metrics["heldout_examples"]) == (20, 10)
    assert metrics["bag_of_words_accuracy"] == 1
    assert result["train_left_out"] == {"no label": 1, "longer than the model's 24 tokens": 39}
    assert result["heldout_left_out"] == {"no label": 1, "longer than the model's 24 tokens": 19}
    assert result["data"]["train"]["sentences"] == 60


def test_the_table_says_what_is_left_out(
    text_folder: Path, reviews: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_probe(str(text_folder), reviews([0, 1] * 30))
    table = capsys.readouterr().out
    assert "1 heldout sentences left out: no label." in table
    assert "No per_step reading: the sentences have several lengths." in table


def test_what_cannot_be_probed_is_refused_in_one_line(
    tmp_path: Path, text_folder: Path, image_folder: Path, reviews: Callable[..., str]
) -> None:
    text_model(latents=False).save_pretrained(tmp_path / "none")
    cases = [
        (tmp_path / "none", "builtin", {}, r"none: has no encoder, so no latents to probe"),
        (tmp_path / "absent", "builtin", {}, r"absent: there is no such folder; "),
        (text_folder, "builtin", {}, r"data 'builtin' has no labels; give the built-in digits"),
        (text_folder, reviews([1] * 20, "one"), {}, r"of \d+ usable training labels, all 'good'"),
        (text_folder, reviews([0, 1] * 9), {"train_limit": 2}, r"2 training labels of \d classes|all '"),
        (text_folder, reviews([0, 1] * 9), {"train_limit": 0}, r"train_limit=0: must be at least 1"),
        (text_folder, reviews([0, 1] * 9), {"label_column": "mood"}, r"label_column='mood'.* choose from \['text'"),
        (image_folder, reviews([0, 1] * 9), {}, r"has no images, only the columns \['text', 'label'\]"),
    ]
    for model, data, options, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            run_probe(str(model), data, **options)
        assert "\n" not in str(error.value)


def test_images_of_another_size_are_refused(tmp_path: Path, image_folder: Path) -> None:
    DeltaVaeImageProcessor(height=4, width=4, channels=1, levels=17, input_levels=17).save_pretrained(image_folder)
    with pytest.raises(ValueError, match=r"'builtin' has images of 1 x 8 x 8 at 17 levels; .* is a model of 1 x 4 x 4"):
        run_probe(str(image_folder), "builtin")
