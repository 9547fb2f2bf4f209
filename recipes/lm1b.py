"""Train a text delta-VAE, evaluate it on held-out text, and write its run folder.

accelerate launch recipes/lm1b.py --config quickstart|small|base|FILE [--data builtin|NAME|PATH] [--output-dir DIR]
    [--resume] [--tracker tensorboard|trackio|wandb|none] [--push-to-hub USER/NAME] [section.key=value ...]
"""

from argparse import Namespace
from pathlib import Path

from delta_vae_lab.console import one_line_errors, recipe_arguments
from delta_vae_lab.text_run import run_text


def parse_arguments() -> Namespace:
    """The command line."""
    return recipe_arguments(__doc__, "lm1b", data="builtin, a file or folder of text, or a data set on the Hub")


def main(arguments: Namespace) -> None:
    """Parse, load, build, train, evaluate, write."""
    run_text(arguments, Path(__file__))


if __name__ == "__main__":
    arguments = parse_arguments()
    with one_line_errors(arguments.debug):
        main(arguments)
