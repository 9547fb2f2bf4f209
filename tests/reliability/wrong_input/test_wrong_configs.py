"""Run configs and overrides that are wrong: every one is refused as a user can mend it, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

SENTENCES = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat", "the cat ran", "off they ran"] * 8
TEXT = b"""
prior: {latent_dim: 2, alpha: [0.5, 0.9]}
encoder: {hidden_size: 8, num_layers: 1, num_heads: 2}
decoder: {hidden_size: 8, num_layers: 1, num_heads: 2}
auxiliary_prior: {hidden_size: 4}
tokenizer: {vocab_size: 262}
optimization: {steps: 1, batch_size: 2, warmup_steps: 1}
evaluation: {examples: 2, batch_size: 2, importance_samples: 1, importance_examples: 2}
max_length: 40
tracker: none
"""

BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c + 1, c + 1, b", ".join([b"*%c" % c] * 9)) for c in range(ord("a"), ord("j"))
)

# What the file holds, and what the error must name beside the file.
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "a comment alone": (b"# nothing yet\n", "empty"),
    "an empty document": (b"---\n...\n", "empty"),
    "null": (b"null\n", "mapping"),
    "a number": (b"42\n", "mapping"),
    "a word": (b"quickstart\n", "mapping"),
    "a list": (b"- prior\n- encoder\n", "mapping"),
    "two documents": (TEXT + b"---\nseed: 1\n", "document"),
    "binary": (bytes(range(256)) * 8, "UTF-8"),
    "an archive": (b"PK\x03\x04" + bytes(range(256)), "UTF-8"),
    "latin-1": (TEXT + "tokenizer: {name: café}\n".encode("latin-1"), "UTF-8"),
    "utf-16": (TEXT.decode().encode("utf-16"), "UTF-8"),
    "NUL": (TEXT + b"seed: \x00\n", "character"),
    "escape": (TEXT + b"seed: \x1b[31m1\n", "character"),
    "a tab": (b"prior:\n\tlatent_dim: 2\n", "\\t"),
    "an open bracket": (b"prior: [", "flow node"),
    "an open quote": (b'tracker: "none', "quoted scalar"),
    "an undefined alias": (b"prior: *there", "there"),
    "duplicate keys": (TEXT + b"seed: 1\nseed: 2\n", "seed"),
    "duplicate keys within": (b"optimization: {steps: 1, steps: 2}\n", "steps"),
    "a bomb of anchors": (BOMB, "alias"),
    "a list within itself": (b"prior: {latent_dim: 1, alpha: &a [*a]}\n", "alias"),
    "a mapping within itself": (b"prior: &a {latent_dim: 1, alpha: *a}\n", "alias"),
    "a thousand brackets": (b"prior: " + b"[" * 5000 + b"]" * 5000, "nested"),
    "a hundred thousand braces": (b"{a: " * 100_000 + b"1" + b"}" * 100_000, "bytes"),
    "a huge file": (b"seed: 1\n" + b"# padding that goes on and on\n" * 60_000, "bytes"),
    "a huge integer": (TEXT + b"seed: " + b"9" * 5000 + b"\n", "seed"),
    "an integer that is no seed": (TEXT + b"seed: 1000000000000000000000\n", "seed=1000000000000000000000"),
    "a day that is none": (TEXT + b"seed: 2024-13-45\n", "seed"),
    "a Python object": (b"seed: !!python/object/apply:os.getpid []\n", "python/object"),
    "a Python tuple": (b"optimization: {betas: !!python/tuple [0.9, 0.99]}\n", "python/tuple"),
    "bytes": (TEXT + b"seed: !!binary aGVsbG8=\n", "seed"),
    "a set": (b"prior: !!set {alpha, latent_dim}\n", "prior"),
    "a number as a key": (TEXT + b"1: 2\n", "1"),
    "null as a key": (TEXT + b"null: 2\n", "null"),
    "a list as a key": (TEXT + b"? [a, b]\n: 2\n", "key"),
    "an unknown section": (TEXT + b"optimisation: {steps: 2}\n", "'optimization'"),
    "an unknown key": (b"prior: {alpah: [0.5]}\n", "'prior.alpha'"),
    "a key with dots": (TEXT + b"optimization.steps: 2\n", "optimization.steps"),
    "a section that is a number": (b"prior: 3\n", "prior"),
    "a section that is a list": (b"prior: [alpha]\n", "prior"),
    "a section that is null": (b"prior: null\n", "prior"),
    "a section of the other kind": (TEXT + b"data: {levels: 2}\n", "data.levels"),
    "a mapping for a number": (TEXT + b"seed: {a: 1}\n", "seed"),
    "a list for a number": (TEXT + b"seed: [1, 2]\n", "seed"),
    "text for a number": (TEXT + b"seed: first\n", "seed"),
    "a fraction for a whole number": (TEXT + b"seed: 1.5\n", "seed"),
    "a truth for a number": (TEXT + b"log_every: true\n", "log_every"),
    "a list for text": (TEXT.replace(b"tracker: none", b"tracker: [none]"), "tracker: "),
    "text among numbers": (b"prior: {latent_dim: 2, alpha: [0.5, high]}\n", "high"),
    "a missing value": (TEXT + b"seed: ???\n", "seed"),
    "an interpolation of nothing": (TEXT + b"seed: ${prior.nothing}\n", "prior.nothing"),
    "an interpolation of itself": (TEXT + b"seed: ${seed}\n", "seed"),
    "an interpolation in a circle": (TEXT + b"seed: ${log_every}\nlog_every: ${seed}\n", "ecursive"),
    "an open interpolation": (TEXT.replace(b"tracker: none", b"tracker: '${none'"), "${none"),
    "a resolver that is none": (TEXT + b"seed: ${now:1}\n", "now"),
    "a variable of the environment": (TEXT.replace(b"tracker: none", b"tracker: ${oc.env:PATH}"), "oc.env"),
    "an image config": (TEXT + b"data: {horizontal_flips: true}\n", "horizontal_flips"),
}

# With these overrides of a sound config, what the error must name.
OVERRIDES: dict[str, str] = {
    "steps": "'steps'",
    "=5": "'=5'",
    ".=5": "'.=5'",
    ".steps=5": "'.steps=5'",
    "optimization.=5": "'optimization.=5'",
    "optimization..steps=5": "'optimization..steps=5'",
    "optimization.steps.more=5": "optimization.steps.more",
    "optimization.steps=": "optimization.steps",
    "optimization.stepz=5": "'optimization.steps'",
    "Optimization.steps=5": "'Optimization'",
    "steps=5": "'steps'",
    "prior.alpha[0]=0.5": "prior.alpha",
    "prior.alpha.0=high": "high",
    "prior.alpha.7=0.5": "prior.alpha",
    "prior.alpha.first=0.5": "prior.alpha",
    "prior.alpha={a: 1}": "prior.alpha",
    "prior.alpha=[": "prior.alpha=[",
    "prior.alpha=[0.5,1.0]": "1.0",
    "prior.alpha=[0.5,-1.5]": "-1.5",
    "prior.alpha=[0.5,nan]": "nan",
    "prior.alpha=[0.5]": "[0.5]",
    "prior.alpha=[]": "[]",
    "prior.alpha=[0.5,null]": "prior.alpha",
    "prior.alpha=0.5": "0.5",
    "prior.alpha=null": "alpha",
    "prior.alpha_low=0.5": "alpha_low",
    "prior.committed_bits=8": "committed_bits",
    "prior.kind=AR1": "AR1",
    "prior.kind=": "prior.kind",
    "prior.latent_dim=0": "prior.latent_dim=0",
    "prior.latent_dim=-3": "prior.latent_dim=-3",
    "prior.latent_dim=1e3": "prior.latent_dim",
    "prior.latent_dim=1000000000000": "prior.latent_dim=1000000000000",
    "prior.hidden_size=99999999999": "prior.hidden_size=99999999999",
    "encoder.hidden_size=0": "encoder.hidden_size=0",
    "encoder.hidden_size=-8": "encoder.hidden_size=-8",
    "encoder.hidden_size=9": "encoder.hidden_size=9",
    "encoder.hidden_size=1000000000": "encoder.hidden_size=1000000000",
    "encoder.num_layers=0": "encoder.num_layers=0",
    "encoder.num_layers=1000000000": "encoder.num_layers=1000000000",
    "encoder.num_heads=3": "num_heads=3",
    "encoder.num_heads=0": "encoder.num_heads=0",
    "encoder.direction=causal": "causal",
    "encoder.dropout=1": "encoder.dropout=1.0",
    "decoder.dropout=-0.1": "decoder.dropout=-0.1",
    "decoder.dropout=nan": "decoder.dropout=nan",
    "decoder.hidden_size=1.5": "decoder.hidden_size",
    "decoder.hidden_size=6": "decoder.hidden_size",
    "decoder.num_layers=0": "decoder.num_layers=0",
    "decoder.add_latents=maybe": "maybe",
    "decoder.latent_attention=both": "both",
    "auxiliary_prior.hidden_size=0": "auxiliary_prior.hidden_size=0",
    "auxiliary_prior.hidden_size=99999999999": "auxiliary_prior.hidden_size=99999999999",
    "auxiliary_prior.fit_to=nowhere/at/all": "nowhere/at/all",
    "positions=absolute": "absolute",
    "max_length=1": "max_length=1",
    "max_length=100000000000": "max_length=100000000000",
    "tokenizer.vocab_size=258": "tokenizer.vocab_size=258",
    "tokenizer.vocab_size=5000": "vocab_size=5000",
    "tokenizer.vocab_size=100000000000": "tokenizer.vocab_size=100000000000",
    "tokenizer.name=nowhere/at/all": "nowhere/at/all",
    "tokenizer.bos_token=<s>": "tokenizer.bos_token",
    "data.name=": "data.name",
    "data.name='   '": "data.name",
    "data.streaming=sometimes": "sometimes",
    "objective.name=elbo": "elbo",
    "objective.beta=0.5": "objective.beta=0.5",
    "objective.beta=-1": "objective.beta=-1",
    "objective.beta=inf": "objective.beta=inf",
    "objective.floor_nats=1": "objective.floor_nats=1.0",
    "objective.annealing=linear": "objective.annealing_steps=0",
    "objective.annealing_steps=-5": "objective.annealing_steps=-5",
    "objective.cycles=0": "objective.cycles=0",
    "optimization.steps=0": "optimization.steps=0",
    "optimization.steps=-1": "optimization.steps=-1",
    "optimization.steps=1e3": "optimization.steps",
    "optimization.steps=1000000000000000000000": "optimization.steps=1000000000000000000000",
    "optimization.steps=null": "optimization.steps",
    "optimization.batch_size=0": "optimization.batch_size=0",
    "optimization.batch_size=100000000000": "batch_size=100000000000",
    "optimization.batch_size=1000": "batch_size=1000",
    "optimization.accumulation=3": "optimization.accumulation=3",
    "optimization.accumulation=0": "optimization.accumulation=0",
    "optimization.learning_rate=0": "optimization.learning_rate=0.0",
    "optimization.learning_rate=-1e-3": "optimization.learning_rate=-0.001",
    "optimization.learning_rate=nan": "optimization.learning_rate=nan",
    "optimization.learning_rate=inf": "optimization.learning_rate=inf",
    "optimization.learning_rate=1e400": "optimization.learning_rate",
    "optimization.learning_rate=fast": "fast",
    "optimization.learning_rate=1,5": "1,5",
    "optimization.auxiliary_learning_rate=0": "optimization.auxiliary_learning_rate=0.0",
    "optimization.schedule=linear-ish": "linear-ish",
    "optimization.warmup_steps=-1": "optimization.warmup_steps=-1",
    "optimization.betas=[0.9]": "optimization.betas",
    "optimization.betas=[0.9,0.99,0.999]": "optimization.betas",
    "optimization.betas=[0.9,1.0]": "(0.9, 1.0)",
    "optimization.betas=0.9": "optimization.betas",
    "optimization.weight_decay=-1": "optimization.weight_decay=-1.0",
    "optimization.weight_decay=nan": "optimization.weight_decay=nan",
    "optimization.max_grad_norm=-1": "optimization.max_grad_norm=-1.0",
    "optimization.polyak_decay=1": "optimization.polyak_decay=1.0",
    "optimization.mixed_precision=fp8": "fp8",
    "optimization.mixed_precision=fp16": "optimization.mixed_precision=fp16",
    "optimization.mixed_precision=true": "optimization.mixed_precision",
    "optimization.compile=perhaps": "perhaps",
    "evaluation.every=-1": "evaluation.every=-1",
    "evaluation.examples=1": "evaluation.examples=1",
    "evaluation.batch_size=0": "evaluation.batch_size=0",
    "evaluation.importance_samples=0": "evaluation.importance_samples=0",
    "evaluation.importance_examples=1": "evaluation.importance_examples=1",
    "checkpoint.every=-1": "checkpoint.every=-1",
    "checkpoint.keep=0": "checkpoint.keep=0",
    "log_every=0": "log_every=0",
    "seed=null": "seed",
    "seed=one": "one",
    "seed=1000000000000000000000": "seed=1000000000000000000000",
    "tracker=nonsense": "nonsense",
    "tracker=": "tracker",
    "tracker=null": "tracker",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sound config of text, and its sentences."""
    (tmp_path / "sound.yaml").write_bytes(TEXT)
    (tmp_path / "sentences").mkdir()
    for split in ("train", "heldout"):
        (tmp_path / f"sentences/{split}.txt").write_text("\n".join(SENTENCES))
    return tmp_path


def train(place: Path, config: Path, *overrides: str) -> list[str | Path]:
    return [
        "train",
        "text",
        "--config",
        config,
        "--data",
        place / "sentences",
        "--output-dir",
        place / "run",
        *overrides,
    ]


def test_every_wrong_config_file_is_refused(
    place: Path, refused: Callable[..., list[str]], all_refused: Callable[..., None]
) -> None:
    wrong = {}
    for name, (content, named) in FILES.items():
        (place / "wrong.yaml").write_bytes(content)
        wrong[name] = refused(train(place, place / "wrong.yaml"), named)
    all_refused(wrong)


def test_every_wrong_override_is_refused(
    place: Path, refused: Callable[..., list[str]], all_refused: Callable[..., None]
) -> None:
    wrong = {one: refused(train(place, place / "sound.yaml", one), named) for one, named in OVERRIDES.items()}
    all_refused(wrong)
