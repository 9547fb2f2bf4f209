"""Data sets that the `datasets` library loads, by Hub name or from a local folder of parquet files."""

import re
from pathlib import Path
from textwrap import shorten

from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

PARQUET_REVISION = "refs/convert/parquet"
HELDOUT_SPLITS = ("validation", "valid", "heldout", "dev", "test")

# `datasets` retries an unreachable name for half a minute: what can only be a path is not looked up.
_HUB_NAME = re.compile(r"(?!.*\.(txt|gz|zip|tar|parquet|jsonl?|csv|npz|png|jpe?g)$)\w[\w.-]*(/[\w.-]+)?")


def load_splits(
    spec: str, *, streaming: bool = False, config: str | None = None, revision: str | None = None
) -> tuple[dict, str | None]:
    """The splits by name, "train" among them, and which of them is held out: the first of `HELDOUT_SPLITS`, if any."""
    splits = _load(spec, streaming=streaming, config=config, revision=revision)
    if "train" not in splits:
        raise ValueError(f"data {spec!r} has the splits {sorted(splits)}; training needs one called 'train'")
    return splits, next((name for name in HELDOUT_SPLITS if name in splits), None)


def _load(spec: str, *, streaming: bool, config: str | None, revision: str | None) -> dict:
    local = Path(spec).is_dir()
    if not local and not _HUB_NAME.fullmatch(spec):
        raise ValueError(f"data {spec!r}: no such file or folder, and not a name that a Hub data set can have")
    try:
        return load_dataset(spec, config, revision=revision, streaming=streaming)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise ValueError(
            f"data {spec!r}: no such file or folder, and no Hub data set of that name was reached; "
            f"check the path, or the name and the network ({shorten(str(error), 200)})"
        ) from error
    except RuntimeError as error:
        if "scripts" not in str(error):
            raise
        raise ValueError(
            f"data {spec!r} is a script, which datasets no longer runs; try revision={PARQUET_REVISION!r}"
        ) from error
    except (ValueError, FileNotFoundError, DatasetGenerationError) as error:
        raise ValueError(f"data {spec!r} cannot be loaded: {shorten(str(error), 200)}; give whole files") from error
