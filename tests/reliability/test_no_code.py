"""Nothing is run that comes from data, nothing is written where it should not be, and no secret is written at all."""

import ast
import io
import json
import logging
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from delta_vae import DeltaVaeForCausalLM
from delta_vae_core.checksums import CHECKSUMS
from delta_vae_encoders import TextEncoder
from delta_vae_lab import cards
from delta_vae_lab.checkpoints import check_state_format, seal
from delta_vae_lab.configuration import load_config
from delta_vae_lab.console import one_line_errors
from delta_vae_lab.data import load_images, load_tokenizer
from delta_vae_lab.export import repository_files
from delta_vae_lab.redaction import redacted
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.saved_model import load_model
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_run import run_text
from tests.hub.conftest import text_run
from tests.reliability.small_run import TINY, train, trained

ROOT = Path(__file__).parents[2]
CODE = sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("recipes/*.py"), *ROOT.glob("hub_cards/space/*.py")])


class Evil:
    """Its pickle makes a folder when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run. Not to be changed."""
    return trained(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with results and a card. Not to be changed."""
    return text_run(RunFolder(tmp_path_factory.mktemp("reported") / "run"))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The folder that only code from data would make; and it would."""
    torch.save({"state": Evil(tmp_path / "proof")}, buffer := io.BytesIO())
    buffer.seek(0)
    torch.load(buffer, weights_only=False)
    assert (tmp_path / "proof").is_dir()
    return tmp_path / "code-was-run"


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Pickles


@pytest.mark.parametrize("bare", [False, True], ids=["torch.save", "pickle"])
@pytest.mark.parametrize("name", ["optimizer.bin", "pytorch_model.bin", "random_states_0.pkl"])
def test_a_pickle_in_a_checkpoint_runs_no_code(
    name: str, bare: bool, finished: RunFolder, mark: Path, tmp_path: Path
) -> None:
    """Sealed as sound: an attacker can compute a SHA-256, too."""
    shutil.copytree(finished.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    newest = run.checkpoints / "step-00000006"
    evil = {"state": Evil(mark), "step": 1}
    if bare:
        (newest / name).write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, newest / name)
    if name == "pytorch_model.bin":  # which is read where there are no safetensors
        (newest / "model.safetensors").unlink()
    seal(newest)
    resume: Callable[[], object] = lambda: train(run, finished.path.parent / "tiny.yaml", resume=True)  # noqa: E731
    if name == "random_states_0.pkl":  # of no use: every draw is a function of the seed, its purpose and the step
        resume()
    else:
        with pytest.raises(ValueError, match="training state holds more than numbers, and is not read") as error:
            resume()
        assert str(newest) in one_line(error)
    assert not mark.exists()


def test_sharded_states_which_torch_unpickles_freely_are_refused() -> None:
    def of(kind: str) -> Any:
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=kind)
        state = SimpleNamespace(fsdp_plugin=plugin)
        return SimpleNamespace(distributed_type=DistributedType.FSDP, state=state)

    check_state_format(of("FULL_STATE_DICT"))
    with pytest.raises(ValueError, match="fsdp_state_dict_type=SHARDED_STATE_DICT .* set FULL_STATE_DICT") as error:
        check_state_format(of("SHARDED_STATE_DICT"))
    one_line(error)


def test_a_pickle_beside_a_model_is_not_read(reported: RunFolder, mark: Path, tmp_path: Path) -> None:
    for name, load in {
        "model": DeltaVaeForCausalLM.from_pretrained,
        "encoder": TextEncoder.from_pretrained,
    }.items():
        folder = tmp_path / name
        part = DeltaVaeForCausalLM.from_pretrained(reported.model)
        (part if name == "model" else part.encoder).save_pretrained(folder)
        (folder / "model.safetensors").unlink()
        (folder / CHECKSUMS).unlink()
        torch.save({"weight": Evil(mark)}, folder / "pytorch_model.bin")
        with pytest.raises((ValueError, OSError, pickle.UnpicklingError)):
            load(folder)
        assert not mark.exists()


# What the code may call: `ruff` bans the rest (rules S102, S301, S307, S506, S602, S614)


def test_nothing_in_the_code_reads_a_pickle_or_trusts_remote_code() -> None:
    calls = 0
    for file in CODE:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            calls += 1
            called, named = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            where = f"{file.name}:{node.lineno}"
            assert called not in {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "yaml.load"}, where
            assert not called.endswith(("read_pickle", "extractall")), where
            assert named.get("trust_remote_code", "False") == "False", where
            assert named.get("shell", "False") == "False", where
            if called in ("np.load", "numpy.load"):
                assert named["allow_pickle"] == "False", where
            if called == "AutoTokenizer.from_pretrained" and "lab" in file.parts:
                assert "trust_remote_code" in named, where
    assert calls > 5000


@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.mkdir [MARK]\n",
        "data: {name: !!python/object/apply:os.mkdir [MARK]}\n",
        "data: !!python/object/new:os.mkdir {args: [MARK]}\n",
    ],
)
def test_yaml_runs_no_code(text: str, tmp_path: Path, mark: Path) -> None:
    (tmp_path / "evil.yaml").write_text(text.replace("MARK", str(mark)))
    with pytest.raises(ValueError, match=r"evil\.yaml: ") as error:
        load_config(TextRunConfig, tmp_path / "evil.yaml")
    one_line(error)
    assert not mark.exists()


def test_a_config_cannot_read_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be written to config.yaml, and published with it."""
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    for value in ("${oc.env:HF_TOKEN}", "a${oc.decode:${oc.env:HF_TOKEN}}", "${oc.${data.column}:HF_TOKEN}"):
        (tmp_path / "evil.yaml").write_text(yaml.safe_dump({"data": {"name": value, "column": "env"}}))
        for source, overrides in (("evil.yaml", []), ("fine.yaml", [f"data.name={value}"])):
            (tmp_path / "fine.yaml").write_text("data: {column: env}")
            with pytest.raises(ValueError, match="is not read in a config; write out what it stands for") as error:
                load_config(TextRunConfig, tmp_path / source, overrides)
            assert "hf_planted" not in one_line(error)


def test_code_beside_a_model_or_a_tokenizer_is_not_run(reported: RunFolder, mark: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reported.model, folder)
    (folder / CHECKSUMS).unlink()
    code = "import os\nos.mkdir({!r})\nclass {}: pass\n"
    (folder / "evil.py").write_text(code.format(str(mark), "Evil"))
    for name, auto in {
        "config.json": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
        "tokenizer_config.json": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
    }.items():
        content = json.loads((folder / name).read_text()) | {"auto_map": auto}
        if name == "tokenizer_config.json":
            content["tokenizer_class"] = "EvilTokenizer"
        (folder / name).write_text(json.dumps(content))
    assert isinstance(load_model(str(folder)), DeltaVaeForCausalLM)
    with pytest.raises(ValueError, match="is neither a folder nor a name that loads") as error:
        load_tokenizer(str(folder))
    one_line(error)
    assert not mark.exists()


# Images and archives


def bomb(side: int) -> bytes:
    """A PNG file of a hundred bytes that says that it has `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_that_would_fill_the_memory_is_named_in_one_line(side: int, tmp_path: Path) -> None:
    """Pillow alone warns of the first, and raises at the second."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(bomb(side))
    with pytest.raises(ValueError, match=rf"a\.png \(Image size \({side**2} pixels\) exceeds limit") as error:
        load_images(str(tmp_path))
    assert str(tmp_path) in one_line(error)


def test_members_of_an_archive_go_nowhere(tmp_path: Path) -> None:
    """The readers read what lies in an archive where it lies: nothing is unpacked, under whatever name."""
    data = tmp_path / "a/data"
    data.mkdir(parents=True)
    png = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (32, 32)).save(png, format="png")
    for part in ("train_32x32", "valid_32x32"):
        with tarfile.open(data / f"{part}.tar", "w") as tar:
            for name in ("../../evil.png", str(tmp_path / "evil.png"), f"{part}/../../../evil.png", f"{part}/1.png"):
                member = tarfile.TarInfo(name)
                member.size = len(png.getvalue())
                tar.addfile(member, io.BytesIO(png.getvalue()))
            link = tarfile.TarInfo(f"{part}/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    with tarfile.open(tmp_path / "a/cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in ("data_batch_1.bin", "test_batch.bin"):
            link = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    images = load_images(str(data))
    assert len(images.train) == len(images.heldout) == 4  # as pixels; of the link nothing
    with pytest.raises(ValueError, match=r"has no data_batch_1\.bin"):
        load_images(str(tmp_path / "a/cifar-10-binary.tar.gz"))
    assert sorted(tmp_path.rglob("*")) == before


# Names and texts that come from data


def with_results(run: RunFolder, folder: Path, /, **changes: Any) -> RunFolder:
    """A copy whose results.json differs in these keys."""
    shutil.copytree(run.path, folder)
    copy = RunFolder(folder)
    results = json.loads(copy.results_file.read_text())
    for key, value in changes.items():
        results[key] = results[key] | value if isinstance(value, dict) else value
    copy.results_file.write_text(json.dumps(results))
    return copy


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", 3])
def test_a_card_is_not_written_outside_its_folder(
    name: Any, reported: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_results(reported, tmp_path / "copy", run=name)
    (tmp_path / "cards").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["cards", str(run.results_file), "--output", str(tmp_path / "cards")])
    with pytest.raises(SystemExit, match="2"):
        cards.main()
    assert "no name of a file" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


EVIL = "<script>alert(1)</script> <img src=x onerror=alert(2)> ![p](https://evil) [l](javascript:alert(3)) | `b`\n# h"


@pytest.mark.parametrize("part", [None, "encoder", "prior"])
def test_what_a_card_shows_of_data_is_text(part: str | None, reported: RunFolder, tmp_path: Path) -> None:
    data = {"name": EVIL, "source": EVIL, "license": EVIL}
    run = with_results(reported, tmp_path / "run", run=EVIL, data=data, command=EVIL, device=EVIL, fitted_to=EVIL)
    card = str(cards.render_card(run, "user/model", None, part))
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["name"].startswith(EVIL)
    assert EVIL.split(maxsplit=1)[0] in body.replace("&lt;", "<").replace("&gt;", ">")
    prose = re.sub(r"```.*?\n```", "", body, flags=re.DOTALL)
    prose = re.sub(r"(?<!\\)`[^`\n]*[^`\\\n]`", "", prose)  # code shows its characters
    assert not re.search(r"<\w", prose)
    assert "](https://evil" not in prose.replace("\\]", "")
    assert "](javascript" not in prose.replace("\\]", "")
    assert "\n# h" not in body
    assert all(line.count("|") - line.count("\\|") == 3 for line in body.splitlines() if line.startswith("| "))


def test_a_backslash_in_data_does_not_undo_what_a_card_escapes() -> None:
    prose = cards._environment().filters["prose"]
    assert prose(r"\[l\](https://evil)") == r"\\\[l\\\](https://evil)"


# Secrets


def test_no_secret_is_in_anything_that_a_run_writes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    seen: Callable[..., None],
) -> None:
    pytest.importorskip("tensorboard")
    planted = {
        "HF_TOKEN": "hf_planted0planted0planted0",
        "WANDB_API_KEY": "0123456789abcdef" * 2,
        "MY_SECRET": "sesame-x",
    }
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    secrets = [*planted.values(), "pass-of-the-user"]
    address = "https://user:pass-of-the-user@example.org/data"
    command = ["lm1b.py", "--data", address, planted["HF_TOKEN"], f"key={planted['WANDB_API_KEY']}", "sesame-x"]
    (tmp_path / "text.txt").write_text("a cat sat\na dog ran\n" * 40)
    tiny = TINY.replace("tracker: none", "tracker: tensorboard\nevaluation: {{importance_samples: 2, examples: 2}}")
    (tmp_path / "tiny.yaml").write_text(tiny.format(data=tmp_path / "text.txt"))
    monkeypatch.setattr(sys, "argv", command)
    nothing = dict.fromkeys(("data", "tracker", "push_to_hub"))
    arguments = Namespace(
        config=str(tmp_path / "tiny.yaml"), output_dir=tmp_path / "run", resume=False, overrides=[], **nothing
    )
    with caplog.at_level(logging.INFO):
        run_text(arguments, Path("lm1b.py"))
        with pytest.raises(SystemExit), one_line_errors():
            raise ValueError(f"data {address!r}: no such file or folder, with {planted['MY_SECRET']}")
    run = RunFolder(tmp_path / "run")
    assert "https://***@example.org/data" in run.results_file.read_text()
    written = {str(file.relative_to(run.path)): file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert {"config.yaml", "results.json", "model/README.md", "metrics.jsonl"} <= written.keys()
    assert any(name.startswith("trackers/") for name in written)
    for upload in repository_files(run, "user/model"):
        written[f"published {upload.name}"] = (
            upload.content if isinstance(upload.content, bytes) else upload.content.read_bytes()
        )
    printed = capfd.readouterr()
    written |= {"output": printed.out.encode(), "errors": printed.err.encode(), "log": caplog.text.encode()}
    assert "https://***@example.org/data" in printed.err
    assert [name for name, content in written.items() for secret in secrets if secret.encode() in content] == []
    seen(secrets=len(secrets), files=len(written), found=0)


def test_only_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_KEY", "lm1b")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsefalse")
    for text in ("runs/lm1b --data falsefalse", "https://example.org/a@b", "user@example.org", "hf_transfer"):
        assert redacted(text) == text
    assert redacted("git+ssh://me:pw@host/x hf_abcdefghijklmnopqrstuv") == "git+ssh://***@host/x ***"


# The network


@pytest.mark.slow
def test_importing_all_of_it_connects_to_nothing() -> None:
    modules = [
        ".".join(file.with_suffix("").parts[file.parts.index("src") + 1 :]).removesuffix(".__init__")
        for file in CODE
        if "src" in file.parts and "__main__" not in file.name
    ]
    assert len(modules) > 100
    program = f"""
import importlib, socket
def refuse(*arguments, **options): raise SystemExit(f"connected: {{arguments}}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
for name in {modules!r}: importlib.import_module(name)
print("all imported")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.stdout.endswith("all imported\n"), done.stderr
