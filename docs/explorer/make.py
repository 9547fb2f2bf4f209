"""Make the explorer's two example pages: draw the data, train a model of each kind, and explore it.

    uv run python docs/explorer/make.py [FOLDER] [section.key=value ...]

Writes sentences.html and shapes.html beside this file, or to FOLDER; data and runs go to runs/explorer/ here.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from delta_vae_lab.cli import app

HERE = Path(__file__).parent
COUNTS = {"train": 6000, "heldout": 600}
SIZE = 16  # pixels of a shape's picture a side

# Who does what to what, and where: a sentence keeps to one place throughout.
PLACES = {
    "harbour": (
        ["sailor", "pilot", "diver"],
        ["paints", "ties", "tows"],
        ["boat", "net", "anchor"],
        ["by the pier", "on the quay"],
    ),
    "kitchen": (
        ["cook", "baker", "waiter"],
        ["stirs", "bakes", "tastes"],
        ["soup", "bread", "cake"],
        ["at the stove", "in the pantry"],
    ),
    "garden": (
        ["gardener", "child", "botanist"],
        ["waters", "plants", "prunes"],
        ["rose", "hedge", "apple tree"],
        ["behind the shed", "along the wall"],
    ),
    "observatory": (
        ["astronomer", "student", "guard"],
        ["watches", "measures", "draws"],
        ["comet", "moon", "planet"],
        ["under the dome", "on the roof"],
    ),
}
TIMES = ["today", "at dawn", "every evening", "before the storm"]
ADJECTIVES = ["old", "young", "tired", "cheerful"]
COLOURS = [(214, 69, 65), (240, 178, 50), (66, 158, 92), (58, 123, 200), (150, 90, 180)]
GROUNDS = [(24, 28, 38), (236, 232, 222)]


def sentence(chance: random.Random) -> str:
    """One or two clauses of one place."""
    people, verbs, things, spots = chance.choice(list(PLACES.values()))

    def clause() -> str:
        subject = f"the {chance.choice(ADJECTIVES)} {chance.choice(people)}"
        return f"{subject} {chance.choice(verbs)} the {chance.choice(things)} {chance.choice(spots)}"

    clauses = " and ".join(clause() for _ in range(chance.choice((1, 2))))
    return f"{chance.choice(TIMES)} {clauses}."


def picture(chance: random.Random) -> Image.Image:
    """A disc, a square, an upright or a lying bar of one colour, anywhere on a dark or a light ground."""
    image = Image.new("RGB", (SIZE, SIZE), chance.choice(GROUNDS))
    kind, half = chance.randrange(4), chance.randint(2, 4)
    across, down = [(half, half), (half, half), (1, half + 2), (half + 2, 1)][kind]
    x, y = chance.randint(across, SIZE - 1 - across), chance.randint(down, SIZE - 1 - down)
    draw = ImageDraw.Draw(image)
    shape = draw.ellipse if kind == 0 else draw.rectangle
    shape((x - across, y - down, x + across, y + down), fill=chance.choice(COLOURS))
    return image


def write_data(folder: Path) -> None:
    """Sentences in FOLDER/sentences/*.txt, pictures in FOLDER/shapes/*/*.png; the same each time."""
    for split, count in COUNTS.items():
        chance = random.Random(split)  # noqa: S311 - drawn data, no secrets
        (folder / "sentences").mkdir(parents=True, exist_ok=True)
        lines = [sentence(chance) for _ in range(count)]
        (folder / f"sentences/{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"shapes/{split}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(chance).save(folder / f"shapes/{split}/{number:05}.png")


def main(arguments: Sequence[str]) -> None:
    """Run the three steps for each kind, as the command line would."""
    overrides = [argument for argument in arguments if "=" in argument]
    [target] = [Path(argument) for argument in arguments if "=" not in argument] or [HERE]
    work = Path("runs/explorer")
    write_data(work)
    for kind, name in (("text", "sentences"), ("images", "shapes")):
        run, data = f"runs/{name}", str(work / name)
        train = ["train", kind, "--config", str(HERE / f"{name}.yaml"), "--data", data, "--output-dir", run]
        explore = ["explore", f"{run}/model", "--data", data, "--out", str(target / f"{name}.html")]
        for command in ([*train, *overrides], explore):
            app(command, standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1:])
