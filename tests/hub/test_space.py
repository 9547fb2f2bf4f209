"""The Space: its page loads a published model, or a folder, and what it shows is what the model itself gives."""

import base64
import html
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_decoders import TextDecoderConfig
from delta_vae_lab.publishing import publish
from delta_vae_lab.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "hub_cards/space"
SENTENCE = "a cat <b>sat</b> on ${1} {{mat}}"

gradio = pytest.importorskip("gradio", reason="the Space needs gradio: uv sync --group space")
gradio_client = pytest.importorskip("gradio_client")
httpx = pytest.importorskip("httpx")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]

Start = Callable[..., str]


@pytest.fixture
def start(hub: Any, tmp_path: Path) -> Iterator[Start]:
    """Start app.py as a Space would, with an empty cache, and give the address of its page."""
    started = []

    def run(**variables: str) -> str:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(tmp_path / "uploads"),
        }
        log = (tmp_path / f"space-{port}.log").open("wb+")
        process = subprocess.Popen(
            [sys.executable, SPACE / "app.py"], env=environment | variables, cwd=tmp_path, stdout=log, stderr=log
        )
        started.append((process, log))
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while time.monotonic() < end and process.poll() is None:
            try:
                httpx.get(url, timeout=5)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return url
        pytest.fail(Path(log.name).read_text())

    yield run
    for process, log in started:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    visitors: list[Any] = []

    def connect(url: str) -> Any:
        visitors.append(gradio_client.Client(url, verbose=False, analytics_enabled=False, download_files=tmp_path))
        return visitors[-1]

    yield connect
    for visitor in visitors:
        visitor.close()


def said(visitor: Any, *arguments: Any, api_name: str) -> str:
    """What the page says of a mistake."""
    with pytest.raises(gradio_client.exceptions.AppError) as at:
        visitor.predict(*arguments, api_name=api_name)
    message = str(at.value)
    assert "\n" not in message
    return message


def decoded_texts(decodings: str) -> list[str]:
    texts = re.findall(r"<figure class=\"\w+\"><div>(.*?)</div>", decodings)
    return [html.unescape(re.sub("</?mark>", "", text)).strip() for text in texts]


def decoded_images(decodings: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([\w+/=]+)", decodings)[:2]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in found]


def totals_of(table: str) -> dict[str, tuple[float, float]]:
    rows = re.findall(r"<tr><th>([^<]+)</th><td>(.*?)</td><td>(.*?)</td></tr>", table)
    return {name: (float(nats), float(bits)) for name, nats, bits in rows}


def check_rates(bars: str, table: str, bound: Any) -> None:
    """The page's, of SENTENCE, against the model's own."""
    tokens = re.findall(r'<span class="token">(.*?)</span>', bars)
    assert "".join(map(html.unescape, tokens)).replace("⟨end⟩", "").strip() == SENTENCE
    assert not re.search(r"<b>sat|\$\{|\{\{", bars)
    nats = [float(rate) for rate in re.findall(r"rate (-?[\d.]+) nats", bars)]
    torch.testing.assert_close(torch.tensor(nats), bound.kl[0].sum(1), atol=6e-4, rtol=0)
    committed = [float(rate) for rate in re.findall(r"committed (-?[\d.]+)\"", bars)]
    assert sum(committed) == pytest.approx(bound.committed_rate.item(), abs=1e-3 * len(tokens))
    totals = totals_of(table)
    for name, rate in {
        "rate": bound.rate,
        "of it committed": bound.committed_rate,
        "slack": bound.rate - bound.committed_rate,
        "rate, auxiliary prior": bound.auxiliary_rate,
    }.items():
        assert totals[name] == pytest.approx((rate.item(), rate.item() / np.log(2)), abs=6e-4)


def test_a_sentence_is_encoded_and_z_moves_its_decoding(
    published_runs: dict[str, RunFolder], hub: Any, start: Start, visit: Callable[[str], Any]
) -> None:
    publish(published_runs["text"].path, "user/a-model", revision="dev")
    url = start(MODEL="user/a-model", REVISION="dev")
    settings = httpx.get(f"{url}/config").json()
    assert settings["analytics_enabled"] is False
    assert not any(sheet for sheet in settings["stylesheets"])  # fonts of another host
    assert "modeling_delta_vae_shim" not in "".join(hub.requests)
    visitor = visit(url)
    *_, bars, table, value, decodings = visitor.predict(SENTENCE, 0, 0, api_name="/encode")

    model = DeltaVaeForCausalLM.from_pretrained(published_runs["text"].model)
    tokenizer = AutoTokenizer.from_pretrained(published_runs["text"].model)
    ids = tokenizer(SENTENCE, return_tensors="pt").input_ids
    with torch.no_grad():
        bound = model(ids, generator=torch.Generator().manual_seed(0))
    check_rates(bars, table, bound)

    def text(z: Tensor, **options: Any) -> str:
        written = tokenizer.decode(model.decode(z, **options)[0], skip_special_tokens=True)
        return " ".join("".join(c if c.isprintable() else "\ufffd" for c in written).split())

    posterior = bound.posterior
    assert decoded_texts(decodings) == [text(posterior.mean)] * 2
    moved = posterior.mean.clone()
    moved[0, 1, 1] += 4 * posterior.scale[0, 1, 1]
    _, value, decodings = visitor.predict(2, 2, False, 4, "posterior", 0, 0, api_name="/move")
    assert f"z = {posterior.mean[0, 1, 1]:.3f} → <b>{moved[0, 1, 1]:.3f}</b>" in value
    assert decoded_texts(decodings) == [text(posterior.mean), text(moved)]

    seeded = {"do_sample": True, "temperature": 1.5}
    moved = posterior.mean.clone()
    moved[0, :, 0] -= 5 * posterior.scale[0, :, 0]
    _, _, decodings = visitor.predict(1, 1, True, -5, "posterior", 3, 1.5, api_name="/move")
    at_seed_3 = [text(z, generator=torch.Generator().manual_seed(3), **seeded) for z in (posterior.mean, moved)]
    assert decoded_texts(decodings) == at_seed_3
    assert len(set(at_seed_3)) == 2  # or the move would go untested
    assert visitor.predict(1, 1, True, -5, "posterior", 3, 1.5, api_name="/decoding") == at_seed_3[1]

    # AR(1) marginals are N(0, 1), so a standard deviation of the prior is 1 up to the error of its estimate.
    _, value, _ = visitor.predict(1, 2, False, 2, "prior", 0, 0, api_name="/move")
    before, after = map(float, re.search(r"z = (\S+) → <b>(\S+)</b>", value).groups())
    assert after - before == pytest.approx(2, abs=0.1)

    kept = visitor.predict(1, 1, True, -5, "posterior", 3, 1.5, api_name="/keep")
    assert decoded_texts(kept[-1]) == [at_seed_3[1]] * 2
    _, _, decodings = visitor.predict(1, 1, True, 5, "posterior", 3, 1.5, api_name="/move")
    assert decoded_texts(decodings)[0] == at_seed_3[1]

    *_, bars, table, _, decodings = visitor.predict("prior", 5, 0, api_name="/draw")
    z = model.sample_latents(1, 32, torch.Generator().manual_seed(5), "prior")
    assert decoded_texts(decodings)[0] == text(z)
    assert "drawn from the prior, seed 5" in bars
    assert table == ""

    longest = model.config.decoder.max_positions
    assert said(visitor, "  \n ", 0, 0, api_name="/encode") == "the sentence is empty: type one"
    assert f"the model reads at most {longest}: shorten it" in said(visitor, "q" * 9999, 0, 0, api_name="/encode")
    assert said(visitor, "a cat", None, 0, api_name="/encode").startswith("the seed is empty")
    assert "so it has no posterior" in said(visitor, 1, 1, False, 1, "posterior", 0, 0, api_name="/move")
    assert "there is no z yet" in said(visit(url), 1, 1, False, 1, "prior", 0, 0, api_name="/move")


def test_an_image_is_encoded_and_z_moves_its_decoding(
    published_runs: dict[str, RunFolder], start: Start, visit: Callable[[str], Any], tmp_path: Path
) -> None:
    run = published_runs["images"]
    visitor = visit(start(MODEL=str(run.model)))
    model = DeltaVaeForImageGeneration.from_pretrained(run.model)
    levels = torch.arange(12).reshape(1, 1, 4, 3)
    shown = np.rint(np.arange(17) * 255 / 16).astype(np.uint8)
    Image.fromarray(shown[levels[0, 0]]).save(tmp_path / "x.png")
    *_, bars, table, _, decodings = visitor.predict(
        gradio_client.handle_file(tmp_path / "x.png"), 7, 1, api_name="/encode"
    )
    with torch.no_grad():
        bound = model(levels, generator=torch.Generator().manual_seed(0))
    assert totals_of(table)["rate"][0] == pytest.approx(bound.rate.item(), abs=6e-4)
    assert bars.count("data-step") == 4
    assert "resized" not in bars

    def image(z: Tensor, seed: int, temperature: float) -> np.ndarray:
        drawn = model.decode(z, generator=torch.Generator().manual_seed(seed), temperature=temperature)
        return shown[drawn[0, 0].numpy()]

    mean, scale = bound.posterior.mean, bound.posterior.scale
    for got in decoded_images(decodings):
        np.testing.assert_array_equal(got, image(mean, 7, 1))
    moved = mean.clone()
    moved[0, :, 1] += 5 * scale[0, :, 1]
    _, _, decodings = visitor.predict(1, 2, True, 5, "posterior", 7, 0.5, api_name="/move")
    expected = [image(mean, 7, 0.5), image(moved, 7, 0.5)]
    assert (expected[0] != expected[1]).any()  # or the move would go untested
    for got, wanted in zip(decoded_images(decodings), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)

    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "large.png")
    *_, bars, _, _, _ = visitor.predict(gradio_client.handle_file(tmp_path / "large.png"), 0, 1, api_name="/encode")
    assert "resized from 30 x 40 to 3 x 4 pixels" in bars
    *_, decodings = visitor.predict("auxiliary", 2, 1, api_name="/draw")
    z = model.sample_latents(1, 4, torch.Generator().manual_seed(2), "auxiliary")
    np.testing.assert_array_equal(decoded_images(decodings)[0], image(z, 2, 1))

    assert said(visitor, None, 0, 1, api_name="/encode") == "there is no image: upload one"
    Image.new("RGBA", (3, 4)).save(tmp_path / "clear.png")
    clear = gradio_client.handle_file(tmp_path / "clear.png")
    assert "with transparency: paste it on a background first" in said(visitor, clear, 0, 1, api_name="/encode")


def test_a_model_that_cannot_be_used_is_told_on_the_page(start: Start) -> None:
    components = httpx.get(f"{start(MODEL='user/none', REVISION='dev')}/config").json()["components"]
    (shown,) = [part["props"]["value"] for part in components if part["type"] == "html"]
    assert "MODEL=user/none, REVISION=dev: no config.json could be read there; give a folder" in html.unescape(shown)


def test_what_is_wrong_with_a_model_is_one_line(published_runs: dict[str, RunFolder], tmp_path: Path) -> None:
    load = module_of("checkpoint").load

    def copy(name: str, without: str = "README.md", **config: Any) -> str:
        folder = shutil.copytree(published_runs["text"].model, tmp_path / name)
        (folder / without).unlink(missing_ok=True)
        (folder / "checksums.json").unlink()  # of the whole folder
        (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
        return str(folder)

    for name, line in {
        "": "MODEL is not set: give this Space the variable MODEL=user/my-model, in its settings",
        "user/none": "MODEL=user/none: no config.json could be read there",
        "no name": "MODEL=no name: no config.json could be read there",
        copy("other", model_type="gpt2"): "a model of type 'gpt2'; give one of type 'delta_vae'",
        copy("weightless", "model.safetensors"): "model.safetensors: not found; the checkpoint is incomplete",
        copy("wordless", "tokenizer.json"): "no tokenizer could be read beside the weights",
    }.items():
        with pytest.raises(ValueError, match=re.escape(line)) as at:
            load(name)
        assert "\n" not in str(at.value)
    text = DeltaVaeForCausalLM.from_pretrained(published_runs["text"].model)
    config = text.config.decoder.to_dict() | {"latent_dim": 0}
    bare = DeltaVaeForCausalLM(DeltaVaeConfig(decoder=TextDecoderConfig(**config)))
    bare.save_pretrained(copy("bare"))
    with pytest.raises(ValueError, match="a decoder without latents has no z to edit"):
        load(str(tmp_path / "bare"))


def module_of(name: str) -> Any:
    """A module of the Space, which is no package."""
    spec = importlib.util.spec_from_file_location(f"space_{name}", SPACE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


def test_what_the_space_asks_for_is_what_the_packages_ask_for() -> None:
    package = tomllib.loads((ROOT / "packages/delta-vae/pyproject.toml").read_text())["project"]
    ours = {wanted.name: wanted for wanted in map(Requirement, package["dependencies"])}
    asked = {wanted.name: wanted for wanted in map(Requirement, (SPACE / "requirements.txt").read_text().splitlines())}
    assert asked.keys() == {"delta-vae", "gradio", "torch", "transformers"}
    assert str(asked["delta-vae"].specifier) == f">={package['version']}"
    for name in ("torch", "transformers"):
        assert asked[name].specifier == ours[name].specifier
    card = yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])
    assert asked["gradio"].specifier.contains(card["sdk_version"])
    assert asked["gradio"].specifier.contains(gradio.__version__)
    assert (card["sdk"], card["app_file"], card["license"]) == ("gradio", "app.py", "apache-2.0")
