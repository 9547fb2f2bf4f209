"""What the explorer gathers of a model, against the model asked example by example, and the verb that writes it."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.cli import app
from delta_vae_lab.data import tokenize, train_tokenizer
from delta_vae_lab.data.image_batches import heldout_image_batches
from delta_vae_lab.data.text_batches import heldout_batches
from delta_vae_lab.explorer.gather import DECODED_BYTES, DRAWS, SHIFTS, STEPS, Plan, gather, plan
from delta_vae_lab.explorer.medium import ImageMedium, TextMedium
from delta_vae_priors import AR1PriorConfig, LSTMPriorConfig, StandardNormalPriorConfig

SENTENCES = ["they sat on the mat", "a cat sat", "the dog ran off", "a mat", "the cat ran", "off they ran", "a"]
ALPHAS = [0.6, 0.9]
LEVELS, HEIGHT, WIDTH = 5, 4, 3
PRIORS: dict[str, Callable[[], Any]] = {
    "ar1": lambda: AR1PriorConfig(alpha=ALPHAS),
    "standard normal": lambda: StandardNormalPriorConfig(latent_dim=2),
    "lstm": lambda: LSTMPriorConfig(latent_dim=2, hidden_size=4),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(iter(SENTENCES * 10), 265)


def build_text(tokenizer: PreTrainedTokenizerFast, prior: str = "ar1", *, full: bool = False) -> DeltaVaeForCausalLM:
    """An untrained model whose posteriors differ and whose decoder heeds them."""
    sizes: dict[str, Any] = {"vocab_size": 265, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "latent_dim": 2}
    sizes |= {"max_positions": 32, "initializer_range": 0.3}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = DeltaVaeConfig(
        prior=PRIORS[prior](),
        encoder=TextEncoderConfig(**sizes, statistics_std=0.7, direction="none" if full else "anticausal"),
        decoder=TextDecoderConfig(
            **sizes, **tokens, latent_attention="full" if full else "causal", add_latents=not full
        ),
    )
    return DeltaVaeForCausalLM(config).eval()


def build_images(latent_dim: int = 2) -> DeltaVaeForImageGeneration:
    sizes: dict[str, Any] = {"channels": 1, "height": HEIGHT, "width": WIDTH, "levels": LEVELS, "hidden_size": 8}
    sizes |= {"num_layers": 1, "num_heads": 2, "attention_layers": 0, "latent_dim": latent_dim}
    torch.manual_seed(0)
    decoder = ImageDecoderConfig(**sizes, likelihood="categorical", add_latents=True)
    if not latent_dim:
        return DeltaVaeForImageGeneration(DeltaVaeConfig(decoder=decoder)).eval()
    encoder = ImageEncoderConfig(**sizes, statistics_std=0.7)
    model = DeltaVaeForImageGeneration(
        DeltaVaeConfig(prior=AR1PriorConfig(alpha=ALPHAS), encoder=encoder, decoder=decoder)
    ).eval()
    with torch.no_grad():
        model.decoder.latent_embedding.weight *= 3
        model.decoder.head.weight *= 50
    return model


def images(count: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(LEVELS, (count, 1, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)


def gather_text(model: DeltaVaeForCausalLM, tokenizer: Any, *, examples: int = 5, seed: int = 0) -> dict[str, Any]:
    batches = list(heldout_batches(tokenize(tokenizer, SENTENCES), 3, tokenizer.pad_token_id))
    about = {"model": "m", "data": "d"}
    return gather(model, batches, TextMedium(model, tokenizer, seed), examples=examples, about=about, seed=seed)


def gather_images(model: DeltaVaeForImageGeneration, *, examples: int = 6, seed: int = 0) -> dict[str, Any]:
    medium = ImageMedium(model, DeltaVaeImageProcessor.for_model(model.config), seed)
    batches = list(heldout_image_batches(images().numpy(), 4))
    return gather(model, batches, medium, examples=examples, about={"model": "m", "data": "d"}, seed=seed)


def posterior_of(model: Any, inputs: Tensor) -> Any:
    with torch.no_grad():
        return model.encode(inputs[None])


def test_rates_are_the_sums_of_the_priors_kl_for_each_sentence_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_text(tokenizer)
    gathered = gather_text(model, tokenizer)
    assert (gathered["measured"], len(gathered["examples"]), gathered["example"]) == (7, 5, "sentence")
    for sentence, example in zip(SENTENCES, gathered["examples"], strict=False):
        ids = torch.tensor(tokenizer(sentence)["input_ids"])
        kl = model.prior.kl(posterior_of(model, ids))[0]
        assert example["rate_nats"] == pytest.approx(kl.sum(1).tolist(), abs=1e-3)
        assert example["total_rate_nats"] == pytest.approx(float(kl.sum()), abs=1e-3)
        n = len(ids) - 1
        committed = 0.5 * sum((n - 2) * math.log(1 + a * a) - math.log(1 - a * a) for a in ALPHAS)
        assert sum(example["committed_nats"]) == pytest.approx(committed, abs=1e-3)
        assert example["total_committed_nats"] == pytest.approx(committed, abs=1e-3)
        assert example["shown"] == sentence
        assert "".join(example["pieces"]) == f"{sentence}⟨end⟩"
        assert len(example["pieces"]) == len(example["rate_nats"]) == len(example["committed_nats"]) == n
    rates = [nats for example in gathered["examples"] for nats in example["rate_nats"]]
    assert gathered["scale_nats"] >= max(rates)


def test_the_estimates_are_those_of_all_that_was_measured(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_text(tokenizer)
    gathered = gather_text(model, tokenizer, examples=2)
    estimates = {row["label"]: row for row in gathered["estimates"]}
    every = gather_text(model, tokenizer, examples=7)["examples"]
    assert estimates["rate"]["nats"] == pytest.approx(sum(e["total_rate_nats"] for e in every) / 7, abs=1e-3)
    assert estimates["slack"]["nats"] == pytest.approx(estimates["rate"]["nats"] - estimates["committed rate"]["nats"])
    assert "at most 1.95" in estimates["I(x; z)"]["meaning"]  # ln 7
    bits = float(estimates["rate"]["in_bits"].split(" ± ")[0])
    assert bits == pytest.approx(estimates["rate"]["nats"] / math.log(2), rel=0.1)
    assert {"I(x; z | n)", "shuffle gap"} <= estimates.keys()
    by_dimension = [dimension["rate_nats"] for dimension in gathered["dimensions"]]
    assert by_dimension == sorted(by_dimension, reverse=True)
    assert sum(by_dimension) == pytest.approx(estimates["rate"]["nats"], abs=1e-3)


def greedy(model: DeltaVaeForCausalLM, z: Tensor) -> list[int]:
    """Token by token, each time by reading all that there is anew: z (T, D)."""
    tokens = [model.config.decoder.bos_token_id]
    while len(tokens) <= len(z) and tokens[-1] != model.config.decoder.eos_token_id:
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), latents=z[None, : len(tokens)]).logits
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


def test_a_sentence_is_decoded_greedily_from_its_moved_posterior_mean(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_text(tokenizer)
    gathered = gather_text(model, tokenizer)
    example = gathered["examples"][0]  # the longest, which the prior need not continue
    mean = posterior_of(model, torch.tensor(tokenizer(SENTENCES[0])["input_ids"])).mean[0]

    def expected(z: Tensor) -> str:
        return " ".join(tokenizer.decode(greedy(model, z), skip_special_tokens=True).split())

    found = example["decodings"]
    assert found["unmoved"].removesuffix(f" [no end in {len(mean)} tokens]") == expected(mean)
    for place, dimension in enumerate(gathered["dimensions"]):
        assert dimension["prior_standard_deviation"] == pytest.approx(1.0, abs=0.1)
        for shift, decoded in zip(SHIFTS, found["by_dimension"][place], strict=True):
            moved = mean.clone()
            moved[:, dimension["index"]] += shift * dimension["prior_standard_deviation"]
            assert decoded.removesuffix(f" [no end in {len(mean)} tokens]") == expected(moved)
    assert len(set(found["by_dimension"][0])) > 1
    for way in found["ways"]:
        assert len(way["decoded"]) == STEPS
        assert way["decoded"][0] == found["unmoved"]
        assert way["decoded"][-1] == gathered["examples"][way["to"]]["decodings"]["unmoved"]


def test_only_z_makes_the_difference_between_the_decodings_of_an_image() -> None:
    model = build_images()
    medium = ImageMedium(model, DeltaVaeImageProcessor.for_model(model.config), 0)
    z = torch.randn(3, HEIGHT, 2, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(3, HEIGHT, dtype=torch.bool)
    first, same, other = medium.decoded(torch.stack([z, z, -z]), mask)
    assert first == same
    assert first != other
    drawn = medium.drawn(z, mask, 4)
    assert [len(draws) for draws in drawn] == [4, 4, 4]
    assert len(set(drawn[0])) > 1


def test_images_are_moved_and_led_to_others_along_the_arc() -> None:
    model = build_images()
    medium = ImageMedium(model, DeltaVaeImageProcessor.for_model(model.config), 0)
    gathered = gather_images(model)
    means = torch.stack([posterior_of(model, image).mean[0] for image in images()[:6]])
    mask = torch.ones(6, HEIGHT, dtype=torch.bool)
    first = gathered["dimensions"][0]
    moved = means.clone()
    moved[:, :, first["index"]] += 2 * first["prior_standard_deviation"]
    halfway = [
        0.5**0.5 * (means[i] + means[e["decodings"]["ways"][0]["to"]]) for i, e in enumerate(gathered["examples"])
    ]
    unmoved, by_two, between = medium.decoded(torch.stack([means, moved, torch.stack(halfway)]), mask)
    assert by_two != unmoved
    for i, example in enumerate(gathered["examples"]):
        decodings = example["decodings"]
        assert decodings["unmoved"] == unmoved[i]
        assert decodings["by_dimension"][0][SHIFTS.index(2)] == by_two[i]
        assert decodings["by_dimension"][1][SHIFTS.index(0)] == unmoved[i]
        assert decodings["ways"][0]["decoded"][STEPS // 2] == between[i]
        assert len(decodings["drawn"]) == DRAWS
        assert example["pieces"] is None
        assert len(example["rate_nats"]) == HEIGHT


def nearest_by_hand(points: list[Any]) -> list[list[tuple[int, float]]]:
    return [
        sorted(
            ((j, float(np.sqrt(((a - b) ** 2).sum()))) for j, b in enumerate(points) if j != i),
            key=lambda pair: pair[1],
        )
        for i, a in enumerate(points)
    ]


def test_neighbours_are_the_nearest_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    """Of images over all latents, of sentences of several lengths over the mean of theirs."""
    of_images, of_text = build_images(), build_text(tokenizer)
    sentences = [torch.tensor(tokenizer(sentence)["input_ids"]) for sentence in SENTENCES[:5]]
    cases = [
        (gather_images(of_images), [posterior_of(of_images, image).mean[0].numpy() for image in images()[:6]]),
        (gather_text(of_text, tokenizer), [posterior_of(of_text, ids).mean[0].mean(0).numpy() for ids in sentences]),
    ]
    for gathered, points in cases:
        for i, (example, expected) in enumerate(zip(gathered["examples"], nearest_by_hand(points), strict=True)):
            found = [(neighbour["example"], neighbour["distance"]) for neighbour in example["neighbours"]]
            assert [j for j, _ in found] == [j for j, _ in expected[:5]]
            assert [distance for _, distance in found] == pytest.approx([d for _, d in expected[:5]], abs=1e-3)
            nearest, farthest = example["decodings"]["ways"]
            assert (nearest["to"], farthest["to"]) == (expected[0][0], expected[-1][0]), i
            assert (nearest["which"], farthest["which"]) == ("nearest", "farthest")


def test_a_seed_decides_all_of_it_and_nothing_else_changes(tokenizer: PreTrainedTokenizerFast) -> None:
    text, pictures = build_text(tokenizer).train(), build_images()
    state = torch.random.get_rng_state()
    for first, again, other in (
        [gather_text(text, tokenizer, seed=seed) for seed in (0, 0, 1)],
        [gather_images(pictures, seed=seed) for seed in (0, 0, 1)],
    ):
        assert first == again
        drawn = [[example["decodings"]["drawn"] for example in one["examples"]] for one in (first, other)]
        assert drawn[0] != drawn[1]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert text.training


@pytest.mark.parametrize(("prior", "full"), [("standard normal", False), ("lstm", False), ("ar1", True)])
def test_every_family_can_be_explored(prior: str, full: bool, tokenizer: PreTrainedTokenizerFast) -> None:
    gathered = gather_text(build_text(tokenizer, prior, full=full), tokenizer)
    commits = prior == "ar1"
    assert all((sum(example["committed_nats"]) > 0) == commits for example in gathered["examples"])
    assert all(len(example["decodings"]["ways"]) == 2 for example in gathered["examples"])


def test_two_examples_have_one_way_between_them() -> None:
    gathered = gather_images(build_images(), examples=2)
    assert [[way["to"] for way in example["decodings"]["ways"]] for example in gathered["examples"]] == [[1], [0]]


def test_decodings_fit_the_page() -> None:
    """Two examples along one dimension are always decoded."""
    for examples, size, latent_dim in product((2, 3, 24, 200), (200, 4_200, 16_500, 200_000), (1, 4, 8, 64)):
        planned = plan(examples, latent_dim, size)
        decodings = planned.examples * (6 * planned.dimensions + 1 + DRAWS + 2 * STEPS)
        assert 2 <= planned.examples <= examples
        assert 1 <= planned.dimensions <= latent_dim
        assert planned == Plan(2, 1) or decodings * size <= DECODED_BYTES


def test_dimensions_are_left_out_before_few_examples_are() -> None:
    assert plan(24, 4, 200) == Plan(12, 4)
    assert plan(24, 8, 4_200) == Plan(10, 8)
    assert plan(24, 8, 16_500) == Plan(4, 3)


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["explore", *map(str, arguments)])


@pytest.fixture(scope="module")
def text_model(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    build_text(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentences")
    for split in ("train", "heldout"):
        (folder / f"{split}.txt").write_text("\n".join(SENTENCES))
    return folder


def test_a_page_is_written_and_only_a_page_is_overwritten(text_model: Path, sentences: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    for examples in (3, 4):
        result = run(text_model, "--data", sentences, "--out", out, "--examples", examples)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"Written to {out}, {out.stat().st_size / 1000:.0f} kB: open it in a browser.\n"
        assert f"All {examples} sentences" in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert out.stat().st_size < 200_000
    out.write_text("<p>my own work</p>")
    result = run(text_model, "--data", sentences, "--out", out)
    assert result.exit_code == 2
    assert "exists and was not written by explore; move it away" in result.stderr
    assert out.read_text() == "<p>my own work</p>"


def test_what_a_user_gets_wrong_is_one_line_and_code_2(text_model: Path, sentences: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    build_images(latent_dim=0).save_pretrained(silent)
    out = tmp_path / "page.html"
    mistakes: list[tuple[Path, str | Path, list[Any], str]] = [
        (silent, "builtin", [], "has no latents (latent_dim=0); explore a model with a prior and an encoder"),
        (text_model, sentences, ["--examples", 1], "examples=1: the page shows 2 to 200"),
        (text_model, sentences, ["--examples", 201], "examples=201: the page shows 2 to 200"),
        (text_model, tmp_path / "nowhere", [], "is a model of text: "),
        (text_model, sentences, ["--out", tmp_path], "is a folder; give the name of a file, such as "),
        (text_model, sentences, ["--out", tmp_path / "no" / "page.html"], "there is no folder "),
        (tmp_path / "nothing", sentences, [], "nothing: there is no such folder; "),
    ]
    for model, data, options, message in mistakes:
        result = run(model, "--data", data, "--out", out, *options)
        assert result.exit_code == 2, (message, result.output)
        assert result.stderr.startswith("error: "), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
        assert message in result.stderr
        assert not out.exists()
