"""Wrong options, models, data and places of every verb of `delta-vae`."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.data import train_tokenizer
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

SENTENCES = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat", "the cat ran", "off they ran"]
PARTS: dict[str, Any] = {
    "prior": AR1PriorConfig(latent_dim=2, alpha=0.8),
    "auxiliary_prior": AuxiliaryPriorConfig(latent_dim=2, hidden_size=4),
}
Refused = Callable[..., list[str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """text/, images/ and silent/, a decoder of text without latents: untrained models."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(iter(SENTENCES * 10), 265)
    sizes: dict[str, Any] = {"vocab_size": 265, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "latent_dim": 2}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    decoder = TextDecoderConfig(**sizes, **tokens)
    DeltaVaeForCausalLM(DeltaVaeConfig(encoder=TextEncoderConfig(**sizes), decoder=decoder, **PARTS)).save_pretrained(
        folder / "text"
    )
    silent = TextDecoderConfig(**sizes | {"latent_dim": 0}, **tokens)
    DeltaVaeForCausalLM(DeltaVaeConfig(decoder=silent)).save_pretrained(folder / "silent")
    for name in ("text", "silent"):
        tokenizer.save_pretrained(folder / name)
    pixels: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "levels": 17, "hidden_size": 8, "num_layers": 1}
    pixels |= {"num_heads": 2, "attention_layers": 0, "latent_dim": 2}
    config = DeltaVaeConfig(
        encoder=ImageEncoderConfig(**pixels), decoder=ImageDecoderConfig(**pixels, components=2), **PARTS
    )
    DeltaVaeForImageGeneration(config).save_pretrained(folder / "images")
    DeltaVaeImageProcessor.for_model(config, input_levels=17).save_pretrained(folder / "images")
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path) -> Path:
    """The models, sentences/, and some places to write to."""
    for name in ("text", "images", "silent"):
        shutil.copytree(models / name, tmp_path / name)
    (tmp_path / "sentences").mkdir()
    for split in ("train", "heldout"):
        (tmp_path / f"sentences/{split}.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "file.txt").write_text("kept\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/results.json").write_text("{}")
    (tmp_path / "run").mkdir()
    shutil.copytree(models / "text", tmp_path / "run/model")
    (tmp_path / "run/results.json").write_text("{}")
    return tmp_path


# {p} is the folder of the test; after "|" what the error must name.
OPTIONS = """
sample {p}/text --count 0 | count=0
sample {p}/text --count -1 | count=-1
sample {p}/text --count many | '--count'
sample {p}/text --count 1.5 | '--count'
sample {p}/text --count 100000000000000000000 | count=100000000000000000000
sample {p}/text --source posterior | posterior
sample {p}/silent --source prior | prior
sample {p}/text --temperature 0 | temperature=0
sample {p}/text --temperature -1 | temperature=-1
sample {p}/text --temperature nan | temperature=nan
sample {p}/text --temperature inf | temperature=inf
sample {p}/text --temperature hot | '--temperature'
sample {p}/images --temperature -1 | temperature=-1
sample {p}/images --temperature nan | temperature=nan
sample {p}/text --max-new-tokens 0 | max_new_tokens=0
sample {p}/text --max-new-tokens 100000 | max_new_tokens=100000
sample {p}/images --max-new-tokens 5 | max_new_tokens=5
sample {p}/text --seed 100000000000000000000 | 100000000000000000000
sample {p}/images --seed -99999999999999999999 | -99999999999999999999
sample {p}/text --seed one | '--seed'
sample {p}/text --sauce prior | --sauce
sample {p}/text more | more
sample | 'model'
reconstruct {p}/text --data {p}/sentences --count 0 | count=0
reconstruct {p}/text --data {p}/sentences --seed 100000000000000000000 | 100000000000000000000
reconstruct {p}/text | --data
reconstruct {p}/silent --data {p}/sentences | silent
interpolate {p}/text --data {p}/sentences --steps 1 | steps=1
interpolate {p}/text --data {p}/sentences --first -1 | first=-1
interpolate {p}/text --data {p}/sentences --second 6 | second=6
interpolate {p}/text --data {p}/sentences --second 99999999999999999999 | second=99999999999999999999
interpolate {p}/silent --data {p}/sentences | silent
interpolate {p}/text --data {p}/sentences --seed 100000000000000000000 | 100000000000000000000
encode {p}/text --data {p}/sentences | --output
encode {p}/text --data {p}/sentences --output {p}/z.npz | z.npz
encode {p}/text --data {p}/sentences --output {p}/z.safetensors --split test | split='test'
encode {p}/text --data {p}/sentences --output {p}/z.safetensors --examples 0 | examples=0
encode {p}/silent --data {p}/sentences --output {p}/z.safetensors | silent
evaluate {p}/text --data {p}/sentences --examples 1 | examples=1
evaluate {p}/text --data {p}/sentences --importance-samples 0 | importance_samples=0
evaluate {p}/text --data {p}/sentences --importance-examples 1 | importance_examples=1
diagnose {p}/text --data {p}/sentences --examples 1 | examples=1
diagnose {p}/text --data {p}/sentences --importance-samples -4 | importance_samples=-4
diagnose {p}/silent --data {p}/sentences | latent_dim=0
probe {p}/text --data {p}/sentences | sentences
probe {p}/images --data builtin --train-limit 0 | train_limit=0
probe {p}/images --data builtin --label-column digit | digit
probe {p}/silent --data {p}/sentences | silent
explore {p}/text --data {p}/sentences --examples 1 | examples=1
explore {p}/text --data {p}/sentences --examples 201 | examples=201
explore {p}/silent --data {p}/sentences | silent
reproduce nothing | nothing
reproduce slow-factr | slow-factr
reproduce slow-factor --scale huge | huge
reproduce slow-factor --seed 1 --seed 1 | [1, 1]
reproduce slow-factor --scale smoke --seed 100000000000000000000 | 100000000000000000000
reproduce table-1 --scale smoke --jobs 0 | jobs=0
reproduce slow-factor --data builtin | data='builtin'
push {p}/nowhere user/name | nowhere
push {p}/run/model user/name | run/model
push {p}/run name | 'name'
push {p}/run ../x | '../x'
push {p}/run user/a--b | 'user/a--b'
push {p}/run user/na..me | 'user/na..me'
push {p}/run user/name.git | 'user/name.git'
push {p}/run user/-name | 'user/-name'
push {p}/run "user/my model" | my model
push {p}/run user/naïve | naïve
push {p}/run user/name/more | user/name/more
push {p}/run user/LONG | LONG
push {p}/run user/name | results.json
train sounds --config {p}/file.txt | 'sounds'
train text --config {p}/nowhere.yaml | nowhere.yaml
train text --config {p}/sentences | sentences
train text --config {p}/text/model.safetensors | model.safetensors
train images --config {p}/file.txt | file.txt
"""

MODELS = """
sample {p}/nowhere | nowhere
sample {p}/file.txt | file.txt
sample {p}/run | run
sample {p}/sentences | sentences
sample ../x | ../x
sample "my model" | my model
sample a--b | a--b
sample -- -x | -x
sample user/name/more | user/name/more
sample user/LONG | LONG
sample "" | model
reconstruct {p}/images --data {p}/sentences | images
reconstruct {p}/text --data builtin-digits-of-sklearn/none.npz | none.npz
evaluate {p}/text --data {p}/images | images
evaluate {p}/text --data {p}/nowhere | nowhere
evaluate {p}/text --data "" | data
evaluate {p}/images --data "" | data
evaluate {p}/text --data "  " | data
evaluate {p}/text --data ../x | ../x
evaluate {p}/text --data LONG | LONG
evaluate {p}/images --data LONG | LONG
evaluate {p}/images --data {p}/file.txt | file.txt
"""

PLACES = """
sample {p}/text --output {p}/file.txt | file.txt
sample {p}/text --output {p}/file.txt/out.txt | file.txt
sample {p}/text --output {p}/none/out.txt | none
sample {p}/text --output {p}/out.png | out.png
sample {p}/images --output {p}/out.txt | out.txt
sample {p}/text --output /proc/version-of-none/out.txt | version-of-none
sample {p}/text --output {p}/LONG.txt | LONG
encode {p}/text --data {p}/sentences --output {p}/none/z.safetensors | none
encode {p}/text --data {p}/sentences --output {p}/text/model.safetensors | model.safetensors
encode {p}/text --data {p}/sentences --output {p}/file.txt/z.safetensors | file.txt
explore {p}/text --data {p}/sentences --out {p}/file.txt | file.txt
explore {p}/text --data {p}/sentences --out {p}/none/page.html | none
explore {p}/text --data {p}/sentences --out {p}/sentences | sentences
diagnose {p}/text --data {p}/sentences --output {p}/file.txt | file.txt
diagnose {p}/text --data {p}/sentences --output {p}/file.txt/out | file.txt
probe {p}/images --data builtin --output {p}/file.txt | file.txt
reproduce slow-factor --scale smoke --output {p}/file.txt | file.txt
reproduce slow-factor --scale smoke --output /proc/none | /proc/none
train text --config {p}/tiny.yaml --data {p}/sentences --output-dir {p}/file.txt | file.txt
train text --config {p}/tiny.yaml --data {p}/sentences --output-dir {p}/file.txt/run | file.txt
train text --config {p}/tiny.yaml --data {p}/sentences --output-dir {p}/foreign | foreign
train text --config {p}/tiny.yaml --data {p}/sentences --output-dir /proc/none | /proc/none
train text --config {p}/tiny.yaml --data {p}/sentences --output-dir {p}/new --tracker nonsense | nonsense
train text --config {p}/tiny.yaml --data {p}/sentences --output-dir {p}/new --push-to-hub name | 'name'
train text --config {p}/tiny.yaml --data "" --output-dir {p}/new | data
"""
LONG = "n" * 300

TINY = """
prior: {latent_dim: 2, alpha: [0.5, 0.9]}
encoder: {hidden_size: 8, num_layers: 1, num_heads: 2}
decoder: {hidden_size: 8, num_layers: 1, num_heads: 2}
tokenizer: {vocab_size: 262}
optimization: {steps: 1, batch_size: 2, warmup_steps: 1}
evaluation: {examples: 2, importance_samples: 1, importance_examples: 2}
max_length: 40
tracker: none
"""


@pytest.mark.parametrize("table", [OPTIONS, MODELS, PLACES], ids=["options", "models", "places"])
def test_every_wrong_command_is_refused(
    table: str, place: Path, refused: Refused, all_refused: Callable[..., None]
) -> None:
    import shlex

    (place / "tiny.yaml").write_text(TINY)
    wrong = {}
    for line in table.strip().splitlines():
        command, _, named = line.partition(" | ")
        arguments = shlex.split(command.replace("{p}", str(place)).replace("LONG", LONG))
        wrong[line] = refused(arguments, named.replace("LONG", LONG))
    all_refused(wrong)


# What is changed in config.json, and what the error must name.
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "a word for alpha": ({"prior": {"alpha": "high"}}, "alpha"),
    "alpha of 1": ({"prior": {"alpha": [1.0, 0.5]}}, "alpha"),
    "a decoder of another kind": ({"decoder": {"model_type": "nonsense"}}, "nonsense"),
    "a wider decoder": ({"decoder": {"hidden_size": 32}}, "wrong"),
    "another vocabulary": ({"decoder": {"vocab_size": 200}, "encoder": {"vocab_size": 200}}, "wrong"),
    "a model of another kind": ({"model_type": "gpt2"}, "gpt2"),
    "an unknown key": ({"decoder": {"hiden_size": 16}}, "hiden_size"),
    "a number for the decoder": ({"decoder": 3}, "decoder"),
    "text for a size": ({"decoder": {"num_layers": "one"}}, "num_layers"),
}


def damaged_model(place: Path, changes: dict[str, Any]) -> Path:
    """A copy of the model of text at place/wrong whose config.json has these changes."""
    wrong = place / "wrong"
    shutil.rmtree(wrong, ignore_errors=True)
    shutil.copytree(place / "text", wrong)
    config = json.loads((wrong / "config.json").read_text())
    for key, change in changes.items():
        config[key] = config[key] | change if isinstance(change, dict) else change
    (wrong / "config.json").write_text(json.dumps(config))
    for manifest in wrong.glob("checksums.json"):  # which would tell of the damage before its cause is found
        manifest.unlink()
    return wrong


def test_every_wrong_model_folder_is_refused(place: Path, refused: Refused, all_refused: Callable[..., None]) -> None:
    wrong = {}
    for name, (changes, named) in DAMAGED.items():
        wrong[name] = refused(["sample", damaged_model(place, changes)], named)
    for file, named in (("model.safetensors",) * 2, ("config.json",) * 2, ("tokenizer.json", "tokenizer")):
        (damaged_model(place, {}) / file).unlink()
        wrong[f"no {file}"] = refused(["sample", place / "wrong"], named)
    shutil.copy(place / "images/model.safetensors", damaged_model(place, {}))
    wrong["weights of images"] = refused(["sample", place / "wrong"], "weights")
    (damaged_model(place, {}) / "config.json").write_text("[]")
    wrong["a list for a config"] = refused(["sample", place / "wrong"], "wrong")
    all_refused(wrong)


def picture(mode: str, size: tuple[int, int] = (8, 8), kind: str = "png", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, format=kind, **options)
    return stream.getvalue()


def noise() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(stream, format="png")
    return stream.getvalue()


def animation() -> bytes:
    frames = [Image.new("L", (8, 8), level) for level in (0, 100, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, format="gif", save_all=True, append_images=frames[1:])
    return stream.getvalue()


# A folder for the model of text, and for that of images: the files, and what the error must name.
TEXTS: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing": ({}, "wrong"),
    "an empty file": ({"train.txt": b"", "heldout.txt": b""}, "wrong"),
    "blank lines": ({"train.txt": b"\n \n\t\n", "heldout.txt": b"a\n"}, "wrong"),
    "one line": ({"train.txt": b"a cat sat\n"}, "wrong"),
    "held-out text alone": ({"heldout.txt": b"a cat sat\n"}, "wrong"),
    "nothing held out": ({"train.txt": b"a\nb\n", "heldout.txt": b""}, "wrong"),
    "binary": ({"train.txt": bytes(range(256)), "heldout.txt": b"a\n"}, "train.txt"),
    "latin-1": ({"train.txt": "café\n".encode("latin-1"), "heldout.txt": b"a\n"}, "train.txt"),
    "utf-16": ({"train.txt": "a cat\n".encode("utf-16"), "heldout.txt": b"a\n"}, "train.txt"),
    "another suffix": ({"train.csv": b"text\na cat\n"}, "wrong"),
    "no parquet": ({"train.parquet": b"PAR1 and no more"}, "wrong"),
    "an empty parquet": ({"train.parquet": b""}, "wrong"),
    "LM1B without a held-out shard": (
        {"training-monolingual.tokenized.shuffled/news.en-00001-of-00100": b"a\n"},
        "news.en.heldout-00000-of-00050",
    ),
    "LM1B without training shards": (
        {"heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050": b"a\n"},
        "training-monolingual.tokenized.shuffled",
    ),
}
GOOD = picture("L")
IMAGES: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing": ({}, "wrong"),
    "one image": ({"a.png": GOOD}, "wrong"),
    "no bytes": ({"a.png": b"", "b.png": GOOD}, "a.png"),
    "truncated": ({"a.png": noise()[:1000], "b.png": GOOD}, "a.png"),
    "text by the name of an image": ({"a.png": b"a cat sat", "b.png": GOOD}, "a.png"),
    "16 bits": ({"a.png": picture("I;16"), "b.png": GOOD}, "a.png"),
    "CMYK": ({"a.jpg": picture("CMYK", kind="jpeg"), "b.png": GOOD}, "a.jpg"),
    "transparent": ({"a.png": picture("RGBA"), "b.png": GOOD}, "a.png"),
    "animated": ({"a.gif": animation(), "b.png": GOOD}, "a.gif"),
    "a format that is not read": ({"a.png": picture("L", kind="tiff"), "b.png": GOOD}, "a.png"),
    "256 levels": ({f"{i}.png": GOOD for i in range(3)}, "256 levels"),
    "text": ({"train.txt": b"a cat sat\n"}, "wrong"),
    "CIFAR-10 cut short": ({"data_batch_1.bin": bytes(3073)}, "data_batch_2.bin"),
    "CIFAR-10 of another size": ({f"data_batch_{i}.bin": bytes(99) for i in range(1, 6)}, "data_batch_1.bin"),
    "CIFAR-10 with a label of 10": (
        {f"{name}.bin": b"\x0a" + bytes(3072) for name in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch")},
        "10",
    ),
    "CIFAR-10 pickled": ({"cifar-10-batches-py/data_batch_1": b"\x80\x04."}, "pickle"),
    "ImageNet pickled": ({"val_data": b"\x80\x04."}, "pickle"),
    "an npz that is none": ({"train_data_batch_1.npz": b"PK", "val_data.npz": b"PK"}, "train_data_batch_1.npz"),
    "an npz alone": ({"train_data_batch_1.npz": b"PK"}, "val_data.npz"),
    "a tar that is none": ({"train_32x32.tar": b"tar", "valid_32x32.tar": b"tar"}, "train_32x32.tar"),
}


@pytest.mark.parametrize(("model", "table"), [("text", TEXTS), ("images", IMAGES)], ids=["text", "images"])
def test_every_wrong_folder_of_data_is_refused(
    model: str,
    table: dict[str, tuple[dict[str, bytes], str]],
    place: Path,
    refused: Refused,
    all_refused: Callable[..., None],
) -> None:
    wrong = {}
    for name, (files, named) in table.items():
        folder = place / "wrong"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(content)
        wrong[name] = refused(["evaluate", place / model, "--data", folder, "--importance-samples", "1"], named)
    all_refused(wrong)


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_every_wrong_array_is_refused(place: Path, refused: Refused, all_refused: Callable[..., None]) -> None:
    arrays = {
        "no data": npz(images=np.zeros((2, 3072), np.uint8)),
        "another width": npz(data=np.zeros((2, 3071), np.uint8)),
        "another shape": npz(data=np.zeros((2, 3, 32, 32), np.uint8)),
        "floats": npz(data=np.zeros((2, 3072), np.float32)),
        "objects": npz(data=np.array([[None] * 3072], dtype=object)),
        "nothing": npz(data=np.zeros((0, 3072), np.uint8)),
    }
    wrong = {}
    for name, content in arrays.items():
        (place / "wrong").mkdir(exist_ok=True)
        for file in ("train_data_batch_1", "val_data"):
            (place / f"wrong/{file}.npz").write_bytes(content)
        named = "imagenet32-2017" if name == "nothing" else "train_data_batch_1.npz"
        wrong[name] = refused(["evaluate", place / "images", "--data", place / "wrong"], named)
    all_refused(wrong)
