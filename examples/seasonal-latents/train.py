"""Train a text delta-VAE with a prior that run configs do not know, through the lab: its data, loop and evaluation.

python train.py [--config FILE] [--data builtin|NAME|PATH] [--output-dir DIR] [--resume]
    [--push-to-hub USER/NAME] [section.key=value ...]

The config is that of any text run; its `prior` tells the latent dimensions, and here nothing more.
"""

import dataclasses
from argparse import Namespace
from pathlib import Path

from seasonal_latents import SeasonalPriorConfig

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_lab.console import one_line_errors, recipe_arguments
from delta_vae_lab.publishing import publish
from delta_vae_lab.randomness import seeded
from delta_vae_lab.recipe import begin
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_run import text_task, write_text_report


def main(arguments: Namespace) -> None:
    """Parse, load, put the prior in place, train, evaluate, write."""
    config, run, accelerator = begin(TextRunConfig, arguments, Path(__file__))
    task = text_task(config, run, accelerator, arguments.resume)
    parts = task.model.config
    prior = SeasonalPriorConfig(latent_dim=parts.latent_dim, period=4, alpha=0.9)
    with seeded(config.seed, "parameters"):
        model = DeltaVaeForCausalLM(
            DeltaVaeConfig(
                prior=prior,
                encoder=parts.encoder,
                decoder=parts.decoder,
                auxiliary_prior=parts.auxiliary_prior,
            )
        )
    task = dataclasses.replace(task, model=model)
    model = task.train(run, accelerator, arguments.resume)
    if accelerator.is_main_process:
        print(write_text_report(model, task, run, accelerator))
        if arguments.push_to_hub is not None:
            print(f"Published: {publish(run.path, arguments.push_to_hub)}")
    accelerator.end_training()


if __name__ == "__main__":
    arguments = recipe_arguments(__doc__, "train", data="builtin, a file or folder of text, or a data set on the Hub")
    with one_line_errors(arguments.debug):
        main(arguments)
