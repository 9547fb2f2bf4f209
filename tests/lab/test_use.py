"""Verbs that use a saved model, against the model's own methods with the same seed."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab import saved_model
from delta_vae_lab.cli import app
from delta_vae_lab.data import load_images, train_tokenizer
from delta_vae_lab.image_grid import TILE
from delta_vae_lab.saved_model import load_examples, load_model
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

HELDOUT = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat", "the cat ran", "off they ran"]
TRAIN = ["the mat", "a dog sat off the mat", "they ran"]


def run(*arguments: str | Path | int) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: str | Path | int) -> Any:
    """What the verb prints as JSON."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def priors(latent_dim: int) -> dict[str, Any]:
    return {
        "prior": AR1PriorConfig(latent_dim=latent_dim, alpha=0.8),
        "auxiliary_prior": AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=4),
    }


def save_text(folder: Path, latent_dim: int = 2) -> Path:
    """An untrained model of text whose decoder heeds z, and its tokenizer."""
    tokenizer = train_tokenizer(iter(HELDOUT * 10), 265)
    tokenizer.save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": 265, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    sizes |= {"latent_dim": latent_dim, "max_positions": 32, "initializer_range": 0.3}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    decoder = TextDecoderConfig(**sizes, **tokens)
    parts = {"encoder": TextEncoderConfig(**sizes, statistics_std=0.7), **priors(latent_dim)} if latent_dim else {}
    config = DeltaVaeConfig(decoder=decoder, **parts)
    DeltaVaeForCausalLM(config).save_pretrained(folder)
    return folder


def save_images(folder: Path, latent_dim: int = 2) -> Path:
    """An untrained model of digits whose decoder heeds z, and its processor."""
    sizes: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "levels": 17, "hidden_size": 8, "num_layers": 1}
    sizes |= {"num_heads": 2, "attention_layers": 0, "latent_dim": latent_dim}
    torch.manual_seed(0)
    decoder = ImageDecoderConfig(**sizes, components=2, add_latents=bool(latent_dim))
    parts = {"encoder": ImageEncoderConfig(**sizes, statistics_std=0.7), **priors(latent_dim)} if latent_dim else {}
    config = DeltaVaeConfig(decoder=decoder, **parts)
    DeltaVaeForImageGeneration(config).save_pretrained(folder)
    DeltaVaeImageProcessor.for_model(config, input_levels=17).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models by name, and `data`, sentences."""
    root = tmp_path_factory.mktemp("use")
    (root / "data").mkdir()
    (root / "data/heldout.txt").write_text("\n".join(HELDOUT))
    (root / "data/train.txt").write_text("\n".join(TRAIN))
    return {
        "data": root / "data",
        "text": save_text(root / "text"),
        "silent text": save_text(root / "silent-text", 0),
        "images": save_images(root / "images"),
        "silent images": save_images(root / "silent-images", 0),
    }


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a verb writes by default is written here."""
    monkeypatch.chdir(tmp_path)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def opened(folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    model: Any = DeltaVaeForCausalLM.from_pretrained(folder)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def plain(text: str) -> str:
    """Without the note that a text has no end, and what cannot be printed."""
    return text.split(" [no end in ", maxsplit=1)[0]


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Any) -> list[str]:
    texts = (" ".join(str(tokenizer.decode(row, skip_special_tokens=True)).split()) for row in ids)
    return ["".join(c if c.isprintable() else "\ufffd" for c in text) for text in texts]


def find_tiles(file: Path, images: Any) -> list[bool]:
    """Whether each image (8, 8) of levels is somewhere in the picture, each of its pixels a square of 8."""
    with Image.open(file) as image:
        pixels = np.asarray(image)
    found = []
    for levels in np.asarray(images):
        enlarged = np.rint(levels / 16 * 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (1, TILE))[:, :, 0]
        places = np.argwhere((windows == enlarged[0]).all(-1))
        found.append(any(np.array_equal(pixels[y : y + TILE, x : x + TILE], enlarged) for y, x in places))
    return found


@pytest.mark.parametrize("source", [None, "prior", "auxiliary"])
def test_text_samples_are_the_models_own(folders: dict[str, Path], source: str | None) -> None:
    options = [] if source is None else ["--source", source]
    texts = answer("sample", folders["text"], "--count", 5, "--seed", 3, "--max-new-tokens", 9, *options)
    model, tokenizer = opened(folders["text"])
    generator = seeded(3)
    latents = model.sample_latents(5, 9, generator, source)
    expected = model.generate(latents=latents, generator=generator, do_sample=True, max_new_tokens=9)
    assert [plain(text) for text in texts] == decoded(tokenizer, expected)
    printed = run("sample", folders["text"], "--count", 5, "--seed", 3, "--max-new-tokens", 9, *options).stdout
    assert printed == "\n\n".join(texts) + "\n"


def test_a_lower_temperature_makes_samples_alike(folders: dict[str, Path]) -> None:
    cold, hot = (
        answer("sample", folders["silent text"], "--count", 6, "--temperature", t, "--max-new-tokens", 6)
        for t in ("1e-4", "1")
    )
    assert len(set(cold)) == 1
    assert len(set(hot)) > 3


def test_a_text_without_a_stated_length_stops_where_the_model_does(folders: dict[str, Path]) -> None:
    for text in answer("sample", folders["text"], "--count", 4):
        assert "[no end in" not in text or text.endswith("[no end in 32 tokens]")


@pytest.mark.parametrize("name", ["images", "silent images"])
def test_image_samples_are_the_models_own(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    result = run("sample", folders[name], "--count", 3, "--seed", 5, "--temperature", "0.7")
    assert result.stdout == "Written to samples.png.\n"
    model: Any = DeltaVaeForImageGeneration.from_pretrained(folders[name])
    expected = model.eval().sample(3, temperature=0.7, generator=seeded(5))
    assert find_tiles(tmp_path / "samples.png", expected[:, 0]) == [True] * 3
    others = model.sample(3, temperature=0.7, generator=seeded(6))
    assert find_tiles(tmp_path / "samples.png", others[:, 0]) == [False] * 3


def test_sentences_are_reconstructed_in_pairs(folders: dict[str, Path], tmp_path: Path) -> None:
    options = ["--data", folders["data"], "--count", 3, "--seed", 2]
    pairs = answer("reconstruct", folders["text"], *options)
    assert [pair["sentence"] for pair in pairs] == HELDOUT[:3]
    model, tokenizer = opened(folders["text"])
    batch = tokenizer(HELDOUT[:3], return_tensors="pt", padding=True)
    expected = model.reconstruct(batch["input_ids"], batch["attention_mask"], generator=seeded(2))
    assert [plain(pair["reconstruction"]) for pair in pairs] == decoded(tokenizer, expected)
    run("reconstruct", folders["text"], *options, "--output", "pairs.txt")
    shown = (tmp_path / "pairs.txt").read_text().rstrip().split("\n\n")
    assert shown == [f"sentence:        {p['sentence']}\nreconstruction:  {p['reconstruction']}" for p in pairs]


def test_images_are_reconstructed_side_by_side(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    said = answer("reconstruct", folders["images"], "--data", "builtin", "--count", 2, "--output", "out")
    assert said == {"written": "out/reconstructions.png"}
    images = torch.from_numpy(load_images("builtin").heldout[:2])
    model: Any = DeltaVaeForImageGeneration.from_pretrained(folders["images"])
    expected = model.eval().reconstruct(images, generator=seeded(0))
    shown = tmp_path / "out/reconstructions.png"
    assert find_tiles(shown, torch.cat([images, expected])[:, 0]) == [True] * 4


def test_the_way_between_two_sentences(folders: dict[str, Path]) -> None:
    options = ["--data", folders["data"], "--first", 4, "--second", 1, "--steps", 4, "--seed", 2]
    way = answer("interpolate", folders["text"], *options)
    assert (way["from"], way["to"]) == (HELDOUT[4], HELDOUT[1])
    model, tokenizer = opened(folders["text"])
    first, second = (tokenizer(HELDOUT[place], return_tensors="pt")["input_ids"][0] for place in (4, 1))
    expected = decoded(tokenizer, model.interpolate(first, second, 4, generator=seeded(2)))
    assert [plain(text) for text in way["decoded"]] == expected
    lines = run("interpolate", folders["text"], *options).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["from", "0.00", "0.33", "0.67", "1.00", "to"]


def test_the_way_between_two_images(folders: dict[str, Path], tmp_path: Path) -> None:
    run("interpolate", folders["images"], "--data", "builtin", "--first", 5, "--second", 2, "--steps", 3)
    images = torch.from_numpy(load_images("builtin").heldout[[5, 2]])
    model: Any = DeltaVaeForImageGeneration.from_pretrained(folders["images"])
    expected = model.eval().interpolate(*images, 3, generator=seeded(0))
    assert find_tiles(tmp_path / "interpolation.png", torch.cat([images, expected])[:, 0]) == [True] * 5


def read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


@pytest.mark.parametrize(("split", "sentences"), [("heldout", HELDOUT), ("train", TRAIN)])
def test_row_i_of_encoded_text_is_sentence_i(
    folders: dict[str, Path], tmp_path: Path, split: str, sentences: list[str]
) -> None:
    """One sentence at a time, without padding, gives the same."""
    where = ["--data", folders["data"], "--split", split, "--seed", 7]
    said = answer("encode", folders["text"], *where, "--output", "z.safetensors")
    tensors, about = read(tmp_path / "z.safetensors")
    assert said["shape"] == list(tensors["mean"].shape)
    model, tokenizer = opened(folders["text"])
    for row, sentence in enumerate(sentences):
        ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
        posterior, length = model.encode(ids), ids.shape[1] - 1
        assert tensors["mask"][row].tolist() == [t < length for t in range(tensors["mask"].shape[1])]
        for name in ("mean", "log_scale"):
            torch.testing.assert_close(tensors[name][row, :length], getattr(posterior, name)[0], atol=1e-5, rtol=1e-5)
        for name in ("mean", "log_scale", "z"):
            assert not tensors[name][row, length:].any()
    assert (about["data"], about["split"], about["seed"]) == ("data", split, "7")
    assert about["model"] == str(folders["text"])
    digest = json.loads(about["fingerprint"])["heldout"]
    assert digest["sentences"] == len(HELDOUT)
    assert "natural logarithm" in json.loads(about["units"])["log_scale"]


def test_encoded_z_are_draws_of_the_posterior_by_the_seed(folders: dict[str, Path], tmp_path: Path) -> None:
    files = {}
    for name, seed, count in (("a", 0, 40), ("again", 0, 40), ("other", 1, 40), ("fewer", 0, 9)):
        where = ["--data", "builtin", "--seed", seed, "--examples", count, "--output", f"{name}.safetensors"]
        assert run("encode", folders["images"], *where).exit_code == 0
        files[name], _ = read(tmp_path / f"{name}.safetensors")
    assert torch.equal(files["a"]["z"], files["again"]["z"])
    assert not torch.equal(files["a"]["z"], files["other"]["z"])
    torch.testing.assert_close(files["fewer"]["z"], files["a"]["z"][:9])
    images = torch.from_numpy(load_images("builtin").heldout[:40])
    model: Any = DeltaVaeForImageGeneration.from_pretrained(folders["images"])
    with torch.no_grad():
        posterior = model.eval().encode(images[30:33])
    torch.testing.assert_close(files["a"]["mean"][30:33], posterior.mean, atol=1e-5, rtol=1e-5)
    noise = (files["a"]["z"] - files["a"]["mean"]) / files["a"]["log_scale"].exp()
    assert abs(float(noise.mean())) < 5 / math.sqrt(noise.numel())
    assert abs(float(noise.square().mean()) - 1) < 5 * math.sqrt(2 / noise.numel())


def test_the_table_of_a_decoder_without_latents_is_its_likelihood(folders: dict[str, Path]) -> None:
    where = ["--data", folders["data"], "--importance-samples", 2]
    metrics = answer("evaluate", folders["silent text"], *where)["metrics"]
    model, tokenizer = opened(folders["silent text"])
    nats = []
    for sentence in HELDOUT:
        ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
        logits = model(ids[:, :-1], logits_to_keep=0).logits.log_softmax(-1)
        nats.append(-float(logits.gather(-1, ids[:, 1:, None]).detach().sum()))
    assert metrics["distortion_nats"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert metrics["negative_elbo_nats"] == pytest.approx(np.mean(nats), rel=1e-5)
    words = sum(len(sentence.split()) + 1 for sentence in HELDOUT)
    assert metrics["perplexity_per_word"] == pytest.approx(math.exp(sum(nats) / words), rel=1e-4)
    table = run("evaluate", folders["silent text"], *where).stdout
    assert "data: 6 held-out sentences" in table
    assert "perplexity a word" in table
    assert "No latents" not in table
    assert "perplexity a word" not in run("evaluate", folders["silent text"], *where, "--no-words").stdout


def test_an_evaluation_is_that_of_the_diagnosis(folders: dict[str, Path]) -> None:
    where = ["--data", "builtin", "--examples", 12, "--importance-samples", 3, "--seed", 4]
    evaluated = answer("evaluate", folders["images"], *where)
    assert evaluated["metrics"] == answer("diagnose", folders["images"], *where)["metrics"]
    assert {"command", "commit", "device", "versions", "data", "model"} <= evaluated.keys()


def test_the_training_split_of_images_is_read_in_order(folders: dict[str, Path]) -> None:
    name = str(folders["images"])
    found = load_examples(name, load_model(name), "builtin", split="train", examples=10)
    np.testing.assert_array_equal(found.content, load_images("builtin").train[:10])
    shuffled = replace(found, content=found.content[::-1].copy())  # type: ignore[index]
    batches = shuffled.batches(4)
    assert [row for batch in batches for row in batch.rows] == list(range(10))


def test_pictures_are_read_in_the_size_of_the_model_and_their_name_says_so(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (21, 12, 10), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"pictures/{number:02}.png")
    model = load_model(str(folders["images"]))
    name = str(tmp_path / "model")
    model.save_pretrained(name)
    processor = DeltaVaeImageProcessor.for_model(model.config, input_levels=256)
    processor.save_pretrained(name)
    found = load_examples(name, model, "pictures")
    assert found.name == "pictures-resized-8x8"
    np.testing.assert_array_equal(found.content, processor.quantize(load_images("pictures", size=8).heldout))


MISTAKES = [
    ("sample", "text", ["--count", 0], "count=0: ask for 1 or more"),
    ("sample", "text", ["--temperature", 0], "temperature=0.0: tokens are drawn at a finite number above 0"),
    ("sample", "text", ["--max-new-tokens", 33], "max_new_tokens=33: this model writes 1 to 32 tokens"),
    ("sample", "text", ["--source", "decoder"], "source='decoder': is not one of this model's priors"),
    ("sample", "text", ["--output", "a.png"], "a.png: this is a model of text, which is no .png"),
    ("sample", "text", ["--output", "no/a.txt"], "no/a.txt: there is no folder no"),
    (
        "sample",
        "silent text",
        ["--source", "prior"],
        "source='prior': is not one of this model's priors; there is none",
    ),
    ("sample", "images", ["--max-new-tokens", 3], "max_new_tokens=3: "),
    ("sample", "images", ["--temperature", -1], "temperature=-1.0: use a finite number >= 0"),
    ("sample", "images", ["--output", "a.txt"], "a.txt: images are written as one .png"),
    ("reconstruct", "silent text", ["--data", "builtin"], "has no latents (latent_dim=0)"),
    ("reconstruct", "text", ["--data", "nowhere"], "is a model of text: "),
    ("reconstruct", "images", ["--data", "builtin", "--count", 0], "count=0: ask for 1 or more"),
    ("interpolate", "images", ["--data", "builtin", "--steps", 1], "steps=1: an interpolation has at least its 2 ends"),
    ("interpolate", "images", ["--data", "builtin", "--first", -1], "first=-1: held-out examples are counted from 0"),
    ("interpolate", "images", ["--data", "builtin", "--second", 9999], "second=9999: sklearn-digits has "),
    ("encode", "images", ["--data", "builtin", "--output", "z.pt"], "z.pt: latents are written as safetensors"),
    (
        "encode",
        "images",
        ["--data", "builtin", "--output", "z.safetensors", "--split", "test"],
        "split='test': is not a part of the data; choose heldout or train",
    ),
    ("encode", "images", ["--data", "builtin", "--output", "z.safetensors", "--examples", 0], "examples=0: must be at"),
    ("encode", "silent images", ["--data", "builtin", "--output", "z.safetensors"], "has no encoder (latent_dim=0)"),
    ("evaluate", "images", ["--data", "builtin", "--importance-samples", 0], "importance_samples=0: the bound is"),
    ("evaluate", "images", ["--data", "builtin", "--examples", 1], "examples=1: a standard error needs 2 or more"),
]


@pytest.mark.parametrize(
    ("verb", "model", "options", "message"), MISTAKES, ids=[f"{verb} {what[:30]}" for verb, _, _, what in MISTAKES]
)
def test_what_a_user_gets_wrong_is_one_line_and_nothing_is_written(
    folders: dict[str, Path], tmp_path: Path, verb: str, model: str, options: list[Any], message: str
) -> None:
    result = run(verb, folders[model], *options)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: "), result.stderr
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["sample", "text", "--output", "there.txt"], "there.txt"),
        (["sample", "images"], "samples.png"),
        (["reconstruct", "images", "--data", "builtin"], "reconstructions.png"),
        (["interpolate", "images", "--data", "builtin"], "interpolation.png"),
        (["encode", "images", "--data", "builtin", "--output", "z.safetensors"], "z.safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_file_that_exists_is_not_overwritten(
    folders: dict[str, Path], tmp_path: Path, arguments: list[str], file: str
) -> None:
    (tmp_path / file).write_text("mine")
    verb, model, *options = arguments
    result = run(verb, folders[model], *options)
    assert result.exit_code == 2
    assert f"error: {file}: exists and is not overwritten; move it away, or give another --output" in result.stderr
    assert (tmp_path / file).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_slip_in_a_path_is_told_without_asking_the_hub(tmp_path: Path) -> None:
    (tmp_path / "lm1b-small").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"lm1b-smal: there is no such folder; .* has lm1b-small$"):
        load_model(str(tmp_path / "lm1b-smal"))


def test_the_owner_of_a_model_on_the_hub_may_have_the_name_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user/other").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    asked = []

    def hub(name: str) -> tuple[dict[str, str], dict[str, str]]:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(saved_model.PreTrainedConfig, "get_config_dict", hub)
    with pytest.raises(ValueError, match="^user/model: there is no such folder; user has other$"):
        load_model("user/model")
    assert asked == ["user/model"]


def test_what_is_neither_a_folder_nor_on_the_hub_is_told() -> None:
    with pytest.raises(ValueError, match="^user/nothing: neither the folder of a model nor the name of one on the Hub"):
        load_model("user/nothing")
