"""A Hub on this machine that speaks the protocol to the real client, and tiny runs to publish on it."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import yaml

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.configuration import save_config
from delta_vae_lab.data import heldout_batches, heldout_image_batches, tokenize, train_tokenizer
from delta_vae_lab.image_samples import write_image_samples
from delta_vae_lab.model_folder import save_reader
from delta_vae_lab.reporting import write_report
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageRunConfig, TextRunConfig
from delta_vae_lab.text_samples import write_text_samples
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

TOKEN = "hf_of_the_user"
SENTENCES = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat"]


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Branches of commits, each all files by path."""

    private: bool
    branches: dict[str, list[dict[str, bytes]]] = field(default_factory=lambda: {"main": [{".gitattributes": b""}]})

    def files(self, revision: str) -> dict[str, bytes] | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = (commit for branch in self.branches.values() for commit in branch)
        return next((commit for commit in commits if self.sha(commit) == revision), None)

    @staticmethod
    def sha(commit: dict[str, bytes]) -> str:
        listing = "".join(f"{name} {git_oid(content)}\n" for name, content in sorted(commit.items()))
        return hashlib.sha1(listing.encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """`user` may write with TOKEN; everything else is read by anyone. `breaks`: a request's path, and bytes read of it.

    What ends in .safetensors goes by the protocol of large files, without Xet.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.breaks: tuple[str, int] | None = None
        self.fails: dict[str, int] = {}
        self.requests: list[str] = []
        self.validated: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of a test."""


class Handler(BaseHTTPRequestHandler):
    """https://huggingface.co as far as publishing and loading need it."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def handle_any(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length", 0))
        if self.server.breaks is not None and re.search(self.server.breaks[0], path):
            self.rfile.read(min(length, self.server.breaks[1]))
            self.close_connection = True
            return
        body = self.rfile.read(length)
        for pattern, status in self.server.fails.items():
            if re.search(pattern, path):
                self.answer({"error": "Something is wrong here."}, status)
                return
        for method, pattern, answer in self.routes():
            if method in (self.command, "ANY") and (match := re.fullmatch(pattern, path)):
                answer(body, *map(unquote, match.groups()))
                return
        self.answer({"error": "Not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def routes(self) -> list[tuple[str, str, Callable[..., None]]]:
        name = r"([\w.-]+/[\w.-]+)"
        return [
            ("POST", "/api/repos/create", self.create),
            ("POST", "/api/validate-yaml", self.validate),
            ("POST", rf"/api/models/{name}/branch/([^/]+)", self.branch),
            ("POST", rf"/api/models/{name}/preupload/([^/]+)", self.preupload),
            ("POST", rf"/api/models/{name}/commit/([^/]+)", self.commit),
            ("POST", rf"/{name}\.git/info/lfs/objects/batch", self.batch),
            ("PUT", r"/large/(\w+)", self.put),
            ("GET", rf"/api/models/{name}", self.info),
            ("GET", rf"/api/models/{name}/revision/([^/]+)", self.info),
            ("GET", rf"/api/models/{name}/tree/([^/]+).*", self.tree),
            ("ANY", rf"/{name}/resolve/([^/]+)/(.+)", self.resolve),
        ]

    def answer(
        self, content: Any = None, status: int = 200, headers: dict[str, str] | None = None, raw: bytes = b""
    ) -> None:
        body = raw if content is None else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def may_write(self, repo: str) -> bool:
        token = self.headers.get("Authorization", "")
        if token != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid user token."}, 401)
        elif not repo.startswith("user/"):
            self.answer({"error": "You have no rights there."}, 403)
        else:
            return True
        return False

    def found(self, repo: str, revision: str = "main") -> tuple[Repository, dict[str, bytes]] | None:
        repository = self.server.repositories.get(repo)
        if repository is None or (repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        files = repository.files(revision)
        if files is None:
            self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, files

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        if self.may_write(repo):
            status = 409 if repo in self.server.repositories else 200
            self.server.repositories.setdefault(repo, Repository(asked.get("visibility") == "private"))
            self.answer({"url": f"{self.server.url}/{repo}", "error": "You already created it"}, status)

    def validate(self, body: bytes) -> None:
        """What the Hub asks of a model card: known types, and a complete model-index."""
        card = json.loads(body)["content"]
        self.server.validated.append(card)
        errors = [{"message": message} for message in problems_of(card)]
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def branch(self, body: bytes, repo: str, branch: str) -> None:
        if self.may_write(repo) and (there := self.found(repo)):
            status = 409 if branch in there[0].branches else 200
            there[0].branches.setdefault(branch, [there[1]])
            self.answer({}, status)

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if self.may_write(repo) and (there := self.found(repo, revision)):
            files = []
            for path in (file["path"] for file in json.loads(body)["files"]):
                old, large = there[1].get(path), path.endswith(".safetensors")
                oid = None if old is None else hashlib.sha256(old).hexdigest() if large else git_oid(old)
                mode = "lfs" if large else "regular"
                files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.answer({"files": files})

    def batch(self, body: bytes, repo: str) -> None:
        if self.may_write(repo):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.server.url}/large/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large_files[oid] = body
        self.answer()

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if not (self.may_write(repo) and (there := self.found(repo, revision))):
            return
        files = dict(there[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.large_files[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        there[0].branches[revision].append(files)
        oid = there[0].sha(files)
        self.answer({"commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"})

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        if there := self.found(repo, revision):
            siblings = [{"rfilename": name} for name in there[1]]
            sha = there[0].sha(there[1])
            self.answer({"id": repo, "sha": sha, "siblings": siblings, "private": there[0].private, "tags": []})

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        if there := self.found(repo, revision):
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
                    for name, content in there[1].items()
                ]
            )

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        if there := self.found(repo, revision):
            commit = {"X-Repo-Commit": there[0].sha(there[1])}
            if path in there[1]:
                content = there[1][path]
                self.answer(None, 200, {"ETag": f'"{git_oid(content)}"', **commit}, content)
            else:
                self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", **commit})


def problems_of(card: str) -> list[str]:
    """What the Hub's documentation of cards and of `model-index` requires, and this card lacks."""
    metadata = yaml.safe_load(card.split("---\n")[1])
    problems = [
        f"{name} must be a string"
        for name in ("license", "pipeline_tag", "library_name")
        if not isinstance(metadata.get(name, ""), str)
    ]
    if not all(isinstance(tag, str) for tag in metadata.get("tags", [None])):
        problems.append("tags must be strings")
    if metadata["license"] == "other" and not isinstance(metadata.get("license_name"), str):
        problems.append("license_name is needed where license is other")
    for model in metadata["model-index"]:
        problems += [] if isinstance(model.get("name"), str) else ["model-index[].name must be a string"]
        for result in model["results"]:
            required = [result["task"].get("type"), result["dataset"].get("type"), result["dataset"].get("name")]
            for metric in result["metrics"]:
                required.append(metric.get("type"))
                problems += [] if isinstance(metric.get("value"), float) else ["a metric's value must be a number"]
            problems += [] if all(isinstance(value, str) for value in required) else ["model-index is incomplete"]
    return problems


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def repository() -> Callable[[dict[str, bytes]], Repository]:
    """A public repository of these files, as if they had been published."""
    return lambda files: Repository(private=False, branches={"main": [files]})


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`huggingface_hub` in this process talks to the Hub of the test, as the user, with a cache of its own.

    What it reads from the environment when it is imported is set afterwards here; `python` starts a process that is
    told in time.
    """
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def python(hub: Hub, tmp_path: Path) -> Callable[..., str]:
    """Run a program in a fresh process, whose cache is empty at first, and give what it prints."""

    def run(code: str, *, offline: bool = False, cwd: Path = tmp_path) -> str:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
        }
        command = [sys.executable, "-W", "ignore", "-c", code]
        finished = subprocess.run(
            command,
            env=environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.fixture(scope="session")
def published_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """A finished run of each kind, "text" and "images", of untrained models. Not to be changed."""
    place = tmp_path_factory.mktemp("runs")
    return {"text": text_run(RunFolder(place / "tiny-text")), "images": image_run(RunFolder(place / "tiny-images"))}


def text_run(run: RunFolder) -> RunFolder:
    tokenizer = train_tokenizer(iter(SENTENCES * 10), 265)
    sizes: dict[str, Any] = {"vocab_size": 265, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "latent_dim": 2}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    model = DeltaVaeForCausalLM(
        DeltaVaeConfig(encoder=TextEncoderConfig(**sizes), decoder=TextDecoderConfig(**sizes, **tokens), **priors())
    )
    heldout = tokenize(tokenizer, SENTENCES)
    save_reader(tokenizer, run.model)
    save_config(TextRunConfig(), run.config_file)
    write_report(
        model.eval(),
        list(heldout_batches(heldout, 2, tokenizer.pad_token_id)),
        tiny(TextRunConfig()),
        run,
        SimpleNamespace(device=torch.device("cpu"), num_processes=1),
        data_of("sentences"),
        lambda: write_text_samples(
            run.samples, model, tokenizer, heldout, data="x", generator=generator(), count=2, max_new_tokens=4
        ),
        words=17,
    )
    return run


def image_run(run: RunFolder) -> RunFolder:
    sizes: dict[str, Any] = {"channels": 1, "height": 4, "width": 3, "levels": 17, "hidden_size": 8, "num_layers": 1}
    sizes |= {"num_heads": 2, "attention_layers": 0, "latent_dim": 2}
    torch.manual_seed(0)
    model = DeltaVaeForImageGeneration(
        DeltaVaeConfig(
            encoder=ImageEncoderConfig(**sizes), decoder=ImageDecoderConfig(**sizes, components=2), **priors()
        )
    )
    processor = DeltaVaeImageProcessor.for_model(model.config, input_levels=17)
    images = np.random.default_rng(0).integers(0, 17, (4, 1, 4, 3), dtype=np.uint8)
    save_reader(processor, run.model)
    save_config(ImageRunConfig(), run.config_file)
    write_report(
        model.eval(),
        list(heldout_image_batches(images, 2)),
        tiny(ImageRunConfig()),
        run,
        SimpleNamespace(device=torch.device("cpu"), num_processes=1),
        data_of("images"),
        lambda: write_image_samples(run.samples, model, processor, images, data="x", generator=generator(), count=8),
    )
    return run


def priors() -> dict[str, Any]:
    auxiliary = AuxiliaryPriorConfig(latent_dim=2, hidden_size=4)
    return {"prior": AR1PriorConfig(latent_dim=2, alpha=0.8), "auxiliary_prior": auxiliary}


def tiny(config: Any) -> Any:
    config.evaluation.importance_samples = 2
    return config


def data_of(examples: str) -> dict[str, Any]:
    split = {examples: 4, "sha256": "0" * 64}
    return {"name": "four-examples", "source": "this file", "train": split, "heldout": split}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
