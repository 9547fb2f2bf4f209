"""Train an image delta-VAE on ImageNet 32 x 32, evaluate it on the validation images, and write its run folder.

accelerate launch recipes/imagenet32.py --data FOLDER [--config ablation-low|large|FILE] [--output-dir DIR] [--resume]
    [--tracker tensorboard|trackio|wandb|none] [--push-to-hub USER/NAME] [section.key=value ...]

FOLDER holds one of the two published versions, whose bits/dim must not be compared: train_32x32/ and valid_32x32/ (PNG,
2016) or train_data_batch_*.npz and val_data.npz (2017). The results say which it is. The decoder without latents that
a preset is to be set beside is `prior.kind=none`; the ordinary VAE, `prior.kind=standard_normal`.
"""

from argparse import Namespace
from pathlib import Path

from delta_vae_lab.console import one_line_errors, recipe_arguments
from delta_vae_lab.image_run import run_images


def parse_arguments() -> Namespace:
    """The command line."""
    return recipe_arguments(
        __doc__, "imagenet32", data="the folder of either version", config="large", data_required=True
    )


def main(arguments: Namespace) -> None:
    """Parse, load, build, train, evaluate, write."""
    run_images(arguments, Path(__file__))


if __name__ == "__main__":
    arguments = parse_arguments()
    with one_line_errors(arguments.debug):
        main(arguments)
