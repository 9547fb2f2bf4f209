"""Train a text delta-VAE, evaluate it on held-out text, and write its run folder.

accelerate launch recipes/lm1b.py --config quickstart|small|base|FILE [--data builtin|NAME|PATH] [--output-dir DIR]
    [--resume] [--push-to-hub USER/NAME] [section.key=value ...]
"""

from argparse import Namespace
from pathlib import Path

from delta_vae_lab.configuration import load_config
from delta_vae_lab.console import one_line_errors, recipe_arguments
from delta_vae_lab.publishing import check_publishable, publish
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_run import text_task, write_text_report
from delta_vae_lab.training import build_accelerator

PRESETS = Path(__file__).parent / "configs" / "lm1b"


def parse_arguments() -> Namespace:
    """The command line."""
    return recipe_arguments(__doc__, "lm1b", data="builtin, a file or folder of text, or a data set on the Hub")


def main(arguments: Namespace) -> None:
    """Parse, load, build, train, evaluate, write."""
    config = load_config(TextRunConfig, arguments.config, arguments.overrides, PRESETS)
    config.data.name = arguments.data or config.data.name
    run = RunFolder(arguments.output_dir or Path("runs") / f"lm1b-{Path(arguments.config).stem}")
    run.check(config, arguments.resume)
    if arguments.push_to_hub is not None:
        check_publishable(arguments.push_to_hub)
    accelerator = build_accelerator(config, run)

    task = text_task(config, run, accelerator, arguments.resume)
    model = task.train(run, accelerator, arguments.resume)
    if accelerator.is_main_process:
        print(write_text_report(model, task, run, accelerator))
        if arguments.push_to_hub is not None:
            print(f"Published: {publish(run.path, arguments.push_to_hub)}")
    accelerator.end_training()


if __name__ == "__main__":
    arguments = parse_arguments()
    with one_line_errors(arguments.debug):
        main(arguments)
