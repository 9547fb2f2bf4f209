"""A run of text of a second or two, trained in this process: what some tests of reliability damage or attack."""

from pathlib import Path

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.configuration import load_config
from delta_vae_lab.model_folder import save_model
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_run import text_task
from delta_vae_lab.training import build_accelerator

TINY = """
data: {{name: {data}}}
prior: {{latent_dim: 2, alpha: [0.6, 0.9]}}
encoder: {{hidden_size: 8, num_layers: 1, num_heads: 2}}
decoder: {{hidden_size: 8, num_layers: 1, num_heads: 2}}
auxiliary_prior: {{hidden_size: 4}}
tokenizer: {{vocab_size: 262}}
optimization: {{steps: 6, batch_size: 4, polyak_decay: 0.5}}
checkpoint: {{every: 2, keep: 9}}
tracker: none
"""


def trained(place: Path) -> RunFolder:
    """`place`/run of `place`/tiny.yaml: six steps with a checkpoint every second, and its model."""
    (place / "text.txt").write_text("".join(f"{'a cat sat on a mat'[: 3 + i % 15]} {i}\n" for i in range(60)))
    (place / "tiny.yaml").write_text(TINY.format(data=place / "text.txt"))
    run = RunFolder(place / "run")
    save_model(train(run, place / "tiny.yaml", resume=False), run.model)
    return run


def train(run: RunFolder, config: Path, resume: bool) -> DeltaVaeForCausalLM:
    settings = load_config(TextRunConfig, config, [])
    accelerator = build_accelerator(settings, run, cpu=True)
    task = text_task(settings, run, accelerator, resume)
    return task.train(run, accelerator, resume, progress=False)
