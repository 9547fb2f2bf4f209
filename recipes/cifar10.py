"""Train an image delta-VAE on CIFAR-10, evaluate it on the test images, and write its run folder.

accelerate launch recipes/cifar10.py --config quickstart|small-cpu|ablation-low|ablation-high|large|FILE
    [--data builtin|NAME|PATH] [--output-dir DIR] [--resume] [--tracker tensorboard|trackio|wandb|none]
    [--push-to-hub USER/NAME] [section.key=value ...]

The decoder without latents that a preset is to be set beside is `prior.kind=none`; the ordinary VAE,
`prior.kind=standard_normal`.
"""

from argparse import Namespace
from pathlib import Path

from delta_vae_lab.console import one_line_errors, recipe_arguments
from delta_vae_lab.image_run import run_images

DATA = "builtin, a folder of images or parquet files, CIFAR-10's binary archive, or a data set on the Hub"


def parse_arguments() -> Namespace:
    """The command line."""
    return recipe_arguments(__doc__, "cifar10", data=DATA)


def main(arguments: Namespace) -> None:
    """Parse, load, build, train, evaluate, write."""
    run_images(arguments, Path(__file__))


if __name__ == "__main__":
    arguments = parse_arguments()
    with one_line_errors(arguments.debug):
        main(arguments)
