"""Tiny checkpoints that every later version must load, and what they answered when they were written.

`python tests/reliability/written.py` writes those of the installed version into tests/reliability/fixtures/VERSION;
what is there already is never written again.
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from transformers import PreTrainedModel

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.architecture import text_model_config
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data.text_batches import TextBatches
from delta_vae_lab.data.tokenization import train_tokenizer
from delta_vae_lab.data.tokens import tokenize
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.training import build_accelerator, train
from delta_vae_priors import (
    AR1Prior,
    AR1PriorConfig,
    AuxiliaryPrior,
    AuxiliaryPriorConfig,
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    LSTMPrior,
    LSTMPriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)

FIXTURES = Path(__file__).parent / "fixtures"
PRIORS: dict[str, Any] = {
    "ar1": lambda: AR1Prior(AR1PriorConfig(alpha=[0.5, 0.9])),
    "independent_delta": lambda: IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=2, delta=0.1)),
    "standard_normal": lambda: StandardNormalPrior(StandardNormalPriorConfig(latent_dim=2)),
    "lstm": lambda: LSTMPrior(LSTMPriorConfig(latent_dim=2, hidden_size=3)),
    "auxiliary": lambda: AuxiliaryPrior(AuxiliaryPriorConfig(latent_dim=2, hidden_size=3)),
}
SENTENCES = [" ".join(["cat", "mat", "sat"][: 1 + i % 3] * (1 + i % 4)) for i in range(20)]
RUN = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
encoder: {hidden_size: 4, num_layers: 1, num_heads: 2}
decoder: {hidden_size: 4, num_layers: 1, num_heads: 2}
auxiliary_prior: {hidden_size: 3}
tokenizer: {vocab_size: 262}
optimization: {steps: 2, batch_size: 4, warmup_steps: 1, schedule: constant}
log_every: 1
tracker: none
"""


def text_answers(folder: Path) -> dict[str, Any]:
    """What the text model and the tokenizer of this folder say of a sentence."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)("the cat sat on the mat")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    noise = torch.linspace(-1, 1, (len(ids) - 1) * 2).view(1, -1, 2)
    generated = model.generate(num_sequences=1, max_new_tokens=5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(torch.tensor([ids]), noise=noise)
    return {"input_ids": ids, "generated": generated[0].tolist(), **_bound(output)}


def image_answers(folder: Path) -> dict[str, Any]:
    """What the image model and the processor of this folder say of an image of 17 levels."""
    image = (np.arange(12, dtype=np.uint8).reshape(4, 3) * 5) % 17
    pixels = DeltaVaeImageProcessor.from_pretrained(folder)(image[None, None], return_tensors="pt")["pixel_values"]
    model = DeltaVaeForImageGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(pixels, noise=torch.linspace(-1, 1, 8).view(1, 4, 2))
    return {"pixels": pixels.flatten().tolist(), **_bound(output)}


def prior_answers(folder: Path) -> dict[str, Any]:
    """The density of two sequences, one of them padded, under the prior of this folder."""
    from transformers import AutoModel

    prior = AutoModel.from_pretrained(folder).eval()
    z, mask = torch.linspace(-2, 2, 16).view(2, 4, 2), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    with torch.no_grad():
        return {"log_prob": prior.log_prob(z, mask).tolist()}


def resumed(folder: Path) -> dict[str, Any]:
    """What the run of this folder logs of two steps more. It is changed."""
    run = RunFolder(folder)
    config = load_config(TextRunConfig, run.config_file, ["optimization.steps=4"])
    _train(run, config, resume=True)
    return {"metrics": run.metrics()[-2:]}


def write(folder: Path) -> None:
    """Write all of them, and their answers."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 265, "hidden_size": 4, "num_layers": 1, "num_heads": 2, "latent_dim": 2}
    sizes["initializer_range"] = 0.3
    tokenizer = train_tokenizer(iter(SENTENCES), 265)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    auxiliary = AuxiliaryPriorConfig(latent_dim=2, hidden_size=3)
    DeltaVaeForCausalLM(
        DeltaVaeConfig(
            prior=AR1PriorConfig(alpha=[0.5, 0.9]),
            encoder=TextEncoderConfig(**sizes),
            decoder=TextDecoderConfig(**sizes, **tokens),
            auxiliary_prior=auxiliary,
        )
    ).save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")

    pixels: dict[str, Any] = {"channels": 1, "height": 4, "width": 3, "levels": 17, "hidden_size": 4, "latent_dim": 2}
    pixels |= {"num_layers": 2, "attention_layers": 1, "num_heads": 2}
    images = DeltaVaeForImageGeneration(
        DeltaVaeConfig(
            prior=IndependentDeltaPriorConfig(latent_dim=2),
            encoder=ImageEncoderConfig(**pixels),
            decoder=ImageDecoderConfig(**pixels, components=2),
            auxiliary_prior=auxiliary,
        )
    )
    images.save_pretrained(folder / "images")
    DeltaVaeImageProcessor.for_model(images.config, input_levels=17).save_pretrained(folder / "images")
    for name, build in PRIORS.items():
        prior: PreTrainedModel = build()
        prior.save_pretrained(folder / "priors" / name)

    run = RunFolder(folder / "run")
    (folder / "run.yaml").write_text(RUN)
    _train(run, load_config(TextRunConfig, folder / "run.yaml"), resume=False)
    (folder / "run.yaml").unlink()


def answers(folder: Path, run: Path) -> dict[str, Any]:
    """Of all that is in this folder; `run` is a copy of its run, which is changed."""
    return {
        "text": text_answers(folder / "text"),
        "images": image_answers(folder / "images"),
        **{f"priors/{path.name}": prior_answers(path) for path in sorted((folder / "priors").iterdir())},
        "run": resumed(run),
    }


def _train(run: RunFolder, config: TextRunConfig, resume: bool) -> None:
    accelerator = build_accelerator(config, run, cpu=True)
    run.start(config, resume)
    tokenizer = train_tokenizer(iter(SENTENCES), config.tokenizer.vocab_size)
    torch.manual_seed(0)
    batches = TextBatches(tokenize(tokenizer, SENTENCES), batch_size=4, pad_token_id=tokenizer.pad_token_id, seed=0)
    train(DeltaVaeForCausalLM(text_model_config(config, tokenizer)), batches, config, accelerator, run, resume=resume)
    AcceleratorState._reset_state(reset_partial_state=True)


def _bound(output: Any) -> dict[str, float]:
    names = ("rate", "distortion", "committed_rate", "auxiliary_rate")
    return {name: float(getattr(output, name)) for name in names}


if __name__ == "__main__":
    import shutil
    import tempfile

    place = FIXTURES / metadata.version("delta-vae")
    if place.exists():
        sys.exit(f"{place}: is there already, and stays what it is")
    write(place)
    with tempfile.TemporaryDirectory() as other:
        shutil.copytree(place / "run", Path(other) / "run")
        (place / "answers.json").write_text(json.dumps(answers(place, Path(other) / "run"), indent=1) + "\n")
