"""From our wheels alone, in a fresh environment outside the repository: a published model in the README's six lines."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from delta_vae_lab.publishing import publish
from delta_vae_lab.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]

README = (Path(__file__).parents[2] / "packages" / "delta-vae" / "README.md").read_text()
CODES = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if '"user/' in code]
SEED = "import torch; torch.manual_seed(0)\n"
SAVE = """
from safetensors.torch import save_file
save_file({"mean": posterior.mean.detach().contiguous(), "again": again, "new": new}, "outputs.safetensors")
"""
WHERE = """
import delta_vae, os, sys
print(delta_vae.__file__, os.environ.get("PYTHONPATH"), "delta_vae_lab" in sys.modules)
"""


@pytest.mark.parametrize("kind", ["text", "images"])
def test_the_six_lines_of_the_readme_give_what_the_model_gave_where_it_was_made(
    kind: str,
    published_runs: dict[str, RunFolder],
    hub: Any,
    fresh_environment: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [code] = [code for code in CODES if ("tokenizer" in code) == (kind == "text")]
    assert len([line for line in code.splitlines() if line]) == 6
    # How the README turns what is drawn into words or pictures.
    [shown] = re.findall(rf"`({'tokenizer' if kind == 'text' else 'processor'}\.\w+\(again.*?\))`", README)
    [name] = set(re.findall(r'"(user/.*?)"', code))
    publish(published_runs[kind].path, name)
    picture = Image.linear_gradient("L").point(lambda level: level // 16)  # the model reads 17 levels, as of digits
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "cat.png")

    environment = fresh_environment("delta-vae")
    assert not environment.distributions & {"delta-vae-lab", "accelerate", "datasets"}
    where = environment.run(
        SEED + code + SAVE + f"assert len({shown}) == 1" + WHERE,
        cwd=tmp_path / "there",
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path / "cache"),
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_XET="1",
    ).split()
    assert where[0].startswith(str(environment.folder))
    assert where[1:] == ["None", "False"]

    monkeypatch.chdir(tmp_path / "here")
    with torch.random.fork_rng():
        exec(SEED + code.replace(name, str(published_runs[kind].model)) + SAVE, {})
    here, there = (load_file(tmp_path / folder / "outputs.safetensors") for folder in ("here", "there"))
    assert here.keys() == there.keys()
    for value in here:
        torch.testing.assert_close(there[value], here[value], msg=value)
