"""A run is published in one commit, or it is not published and one line says why."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard
from packaging.version import Version
from typer.testing import CliRunner

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.cli import app
from delta_vae_lab.export import repository_files
from delta_vae_lab.publishing import check_publishable, publish
from delta_vae_lab.run_folder import RunFolder

SHIM = "modeling_delta_vae_shim"
validates = pytest.mark.skipif(
    Version(huggingface_hub.__version__) < Version("2"),
    reason="ModelCard.validate of huggingface-hub 1 asks its own Hub by name, whatever HF_ENDPOINT says",
)
pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]


def contents(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_run_is_published_in_one_commit(kind: str, published_runs: dict[str, RunFolder], hub: Any) -> None:
    run = published_runs[kind]
    before = contents(run.path)
    url = publish(run.path, "user/a-model")
    assert contents(run.path) == before
    repository = hub.repositories["user/a-model"]
    assert not repository.private
    first, commit = repository.branches["main"]
    assert url == f"{hub.url}/user/a-model/commit/{repository.sha(commit)}"
    expected = {
        "README.md",
        "checksums.json",
        "config.json",
        "config.yaml",
        "figures/rate_by_position.png",
        "figures/rate_by_step_and_dimension.png",
        "model.safetensors",
        "results.json",
        f"{SHIM}.py",
    }
    expected |= {
        "text": {"generation_config.json", "tokenizer.json", "tokenizer_config.json"},
        "images": {"preprocessor_config.json"},
    }[kind]
    samples = {name for name in commit if name.startswith("samples/")}
    assert commit.keys() - first.keys() - samples == expected
    assert samples == {f"samples/{file.name}" for file in run.samples.iterdir()} != set()
    for name in ("model.safetensors", "generation_config.json", "tokenizer.json"):
        if name in commit:
            assert commit[name] == (run.model / name).read_bytes()
    assert commit["results.json"] == run.results_file.read_bytes()


def test_only_the_published_config_names_the_shim(published_runs: dict[str, RunFolder], hub: Any) -> None:
    remote: dict[str, dict[str, str]] = {"text": {}, "images": {}}
    for kind, found in remote.items():
        publish(published_runs[kind].path, f"user/{kind}")
        files = hub.repositories[f"user/{kind}"].files("main")
        for name in ("config.json", "preprocessor_config.json"):
            if name in files:
                published = json.loads(files[name])
                found.update(published.pop("auto_map"))
                assert published == json.loads((published_runs[kind].model / name).read_text())
    shared = {"AutoConfig": f"{SHIM}.DeltaVaeConfig", "AutoModel": f"{SHIM}.DeltaVaeModel"}
    assert remote["text"] == shared | {"AutoModelForCausalLM": f"{SHIM}.DeltaVaeForCausalLM"}
    assert remote["images"] == shared | {"AutoImageProcessor": f"{SHIM}.DeltaVaeImageProcessor"}


def test_what_is_loaded_from_published_files_is_saved_without_the_shim(
    published_runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    """Loading as remote code asks the classes to copy themselves beside what they save."""
    for kind, model in (("text", DeltaVaeForCausalLM), ("images", DeltaVaeForImageGeneration)):
        for upload in repository_files(published_runs[kind], "user/a-model"):
            file = tmp_path / kind / upload.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(upload.content if isinstance(upload.content, bytes) else upload.content.read_bytes())
        loaded = [model.from_pretrained(tmp_path / kind), DeltaVaeConfig.from_pretrained(tmp_path / kind)]
        if kind == "images":
            loaded.append(DeltaVaeImageProcessor.from_pretrained(tmp_path / kind))
        for number, part in enumerate(loaded):
            assert hasattr(getattr(part, "config", part), "auto_map")
            type(part).register_for_auto_class()
            part.save_pretrained(again := tmp_path / f"{kind}-{number}")
            assert [file.name for file in again.iterdir() if "auto_map" in file.read_text(errors="ignore")] == []
            assert list(again.glob("*.py")) == []


def test_a_class_of_ones_own_may_be_shared_as_remote_code() -> None:
    for ours, auto in ((DeltaVaeForCausalLM, "AutoModel"), (DeltaVaeConfig, "AutoConfig")):
        mine = type("Mine", (ours,), {"__module__": "mine"})
        mine.register_for_auto_class(auto)
        assert (mine._auto_class, ours._auto_class) == (auto, None)
    config = DeltaVaeConfig.from_dict({"auto_map": {"AutoModel": "mine.Mine", "AutoConfig": f"user/a--{SHIM}.X"}})
    assert config.to_diff_dict()["auto_map"] == {"AutoModel": "mine.Mine"}


def test_the_same_run_again_changes_nothing(published_runs: dict[str, RunFolder], hub: Any) -> None:
    first = publish(published_runs["text"].path, "user/a-model")
    assert publish(published_runs["text"].path, "user/a-model") == first
    assert len(hub.repositories["user/a-model"].branches["main"]) == 2


def test_another_run_takes_the_place_of_the_first(
    published_runs: dict[str, RunFolder], hub: Any, tmp_path: Path
) -> None:
    publish(published_runs["text"].path, "user/a-model")
    repository = hub.repositories["user/a-model"]
    repository.branches["main"][-1]["NOTES.md"] = b"by hand"
    other = shutil.copytree(published_runs["text"].path, tmp_path / "other")
    (other / "samples/interpolations.txt").unlink()
    publish(other, "user/a-model")
    files = repository.files("main")
    assert "samples/interpolations.txt" not in files
    assert files["NOTES.md"] == b"by hand"
    assert "samples/reconstructions.txt" in files


def test_a_private_repository_is_made_and_a_public_one_is_not_taken_for_one(
    published_runs: dict[str, RunFolder], hub: Any
) -> None:
    publish(published_runs["text"].path, "user/secret", private=True)
    assert hub.repositories["user/secret"].private
    publish(published_runs["text"].path, "user/secret", private=True)
    publish(published_runs["text"].path, "user/open")
    commits = len(hub.repositories["user/open"].branches["main"])
    with pytest.raises(ValueError, match="user/open: is public; make it private in its settings first"):
        publish(published_runs["images"].path, "user/open", private=True, revision="dev")
    assert hub.repositories["user/open"].branches.keys() == {"main"}
    assert len(hub.repositories["user/open"].branches["main"]) == commits


def test_a_branch_is_made_and_used(published_runs: dict[str, RunFolder], hub: Any) -> None:
    for _ in range(2):
        publish(published_runs["text"].path, "user/a-model", revision="wide/er")
    branches = hub.repositories["user/a-model"].branches
    assert branches["main"][-1].keys() == {".gitattributes"}
    card = branches["wide/er"][-1]["README.md"].decode()
    assert 'from_pretrained("user/a-model", revision="wide/er")' in card


@validates
@pytest.mark.parametrize("kind", ["text", "images"])
def test_the_published_card_is_valid_and_its_links_lead_somewhere(
    kind: str, published_runs: dict[str, RunFolder], hub: Any
) -> None:
    publish(published_runs[kind].path, "user/a-model")
    files = hub.repositories["user/a-model"].files("main")
    card = ModelCard(files["README.md"].decode())
    card.validate()  # by the Hub, which answers 400 to what its documentation forbids
    assert hub.validated[-1] == str(card)
    metrics = json.loads(files["results.json"])["metrics"]
    listed = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert listed == {name: pytest.approx(metrics[name]) for name in listed}
    assert {"importance_weighted_nll_nats", "rate_nats", "committed_rate_nats", "slack_nats"} <= listed.keys()
    links = {line.split("](")[1].rstrip(")") for line in card.text.splitlines() if line.startswith(("![", "- ["))}
    assert {"figures/rate_by_step_and_dimension.png", "figures/rate_by_position.png"} < links <= files.keys()
    assert {link for link in links if link.startswith("samples/")} == {name for name in files if "samples/" in name}
    assert str(published_runs[kind].path) not in str(card)


def test_a_dry_run_lists_what_would_be_sent_and_sends_nothing(
    published_runs: dict[str, RunFolder], hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = published_runs["text"]
    listing = publish(run.path, "user/a-model", dry_run=True)
    size = (run.model / "model.safetensors").stat().st_size
    assert any(line.split() == ["model.safetensors", f"{size:,}", "bytes"] for line in listing.splitlines())
    card = Path(listing.rpartition("The card: ")[2])
    assert 'from_pretrained("user/a-model")' in card.read_text()
    assert hub.requests == []


@pytest.mark.parametrize(
    "repo", ["a-model", "user/a/model", "user/a model", "user/-a", "user/a--b", "user/a.git", "u/é"]
)
def test_a_name_that_the_hub_cannot_have_is_refused(repo: str, published_runs: dict[str, RunFolder], hub: Any) -> None:
    with pytest.raises(ValueError, match=r"^repository '.*': give USER/NAME, as in user/delta-vae-lm1b"):
        publish(published_runs["text"].path, repo)
    assert hub.requests == []


def test_a_folder_that_holds_no_finished_run_is_refused(
    published_runs: dict[str, RunFolder], hub: Any, tmp_path: Path
) -> None:
    run = published_runs["text"].path
    with pytest.raises(ValueError, match="nowhere: no such run; give the folder that a recipe wrote"):
        publish(tmp_path / "nowhere", "user/a-model")
    with pytest.raises(ValueError, match=r"model: is the model of a run; give the run's own folder, .*tiny-text$"):
        publish(run / "model", "user/a-model")
    for missing, message in [
        ("results.json", "has no results.json; give the folder of a run that was trained to its end"),
        ("model/config.json", "has no model/config.json; give the folder of a run"),
        ("model/model.safetensors", "has no weights .*; give the folder of a run"),
    ]:
        copy = shutil.copytree(run, tmp_path / missing.replace("/", "-"))
        (copy / missing).unlink()
        with pytest.raises(ValueError, match=message):
            publish(copy, "user/a-model")
    for damaged in ("results.json", "model/model.safetensors"):
        copy = shutil.copytree(run, tmp_path / f"damaged-{damaged.replace('/', '-')}")
        (copy / damaged).write_bytes((run / damaged).read_bytes()[:-50])
        with pytest.raises(ValueError, match=f"{damaged}: damaged"):
            publish(copy, "user/a-model")
    assert hub.requests == []


@pytest.mark.parametrize("where", [r"/large/", r"/commit/", r"/preupload/", r"/api/repos/create"])
def test_a_broken_connection_publishes_nothing(where: str, published_runs: dict[str, RunFolder], hub: Any) -> None:
    run = published_runs["text"].path
    before = contents(run)
    hub.breaks = (where, 1000)
    with pytest.raises(
        ValueError, match="connection to the Hub broke .*: nothing was published, .* run it again"
    ) as at:
        publish(run, "user/a-model", revision="dev", private=True)
    assert "\n" not in str(at.value)
    assert str(at.value).endswith(f"delta-vae push {run} user/a-model --private --revision dev")
    assert contents(run) == before
    if where != r"/api/repos/create":
        (files,) = hub.repositories["user/a-model"].branches["dev"]
        assert files.keys() == {".gitattributes"}
    hub.breaks = None
    publish(run, "user/a-model")
    assert "model.safetensors" in hub.repositories["user/a-model"].files("main")


def test_a_hub_that_is_not_there_is_told_in_one_line(
    published_runs: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"connection to the Hub broke \(ConnectError"):
        publish(published_runs["text"].path, "user/a-model")


def test_who_may_not_write_is_told_so(
    published_runs: dict[str, RunFolder], hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = published_runs["text"].path
    with pytest.raises(ValueError, match=r"^somebody/else: this token may not write there \(403\), nothing was") as at:
        publish(run, "somebody/else")
    assert "\n" not in str(at.value)
    hub.fails["/large/"] = 403
    with pytest.raises(ValueError, match=r"^user/a-model: this token may not write there \(403\)"):
        publish(run, "user/a-model")
    hub.fails = {"/commit/": 500}
    with pytest.raises(ValueError, match=r"^user/a-model: Something is wrong here. \(500\), nothing was published;"):
        publish(run, "user/a-model")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(
        ValueError, match=r"user/a-model: the Hub does not know this token \(401\), nothing .* `hf auth"
    ):
        publish(run, "user/a-model")
    assert len(hub.repositories["user/a-model"].branches["main"]) == 1


def test_without_a_token_or_offline_nothing_is_begun(
    published_runs: dict[str, RunFolder], hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_publishable("user/a-model")
    monkeypatch.delenv("HF_TOKEN")
    for ask in (check_publishable, lambda repo: publish(published_runs["text"].path, repo)):
        with pytest.raises(
            ValueError, match="^no token for the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN"
        ):
            ask("user/a-model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="^HF_HUB_OFFLINE=1: nothing can be published"):
        check_publishable("user/a-model")
    assert hub.requests == []


def test_the_command_prints_the_commit_or_one_line(
    published_runs: dict[str, RunFolder], hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = str(published_runs["images"].path)
    result = CliRunner().invoke(app, ["push", run, "user/a-model", "--private", "--revision", "dev"])
    assert result.exit_code == 0, result.output
    repository = hub.repositories["user/a-model"]
    assert repository.private
    assert result.stdout == f"{hub.url}/user/a-model/commit/{repository.sha(repository.files('dev'))}\n"
    result = CliRunner().invoke(app, ["push", run, "user/other", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "Nothing was sent." in result.stdout
    assert "user/other" not in hub.repositories
    result = CliRunner().invoke(app, ["push", run, "somebody/else"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: somebody/else: this token may not write there (403), nothing")
    assert result.stderr.count("\n") == 1


@validates
def test_the_server_of_these_tests_refuses_a_bad_card(hub: Any) -> None:
    """Else its word on our cards would be worth nothing."""
    good = {
        "license": "mit",
        "pipeline_tag": "x",
        "library_name": "y",
        "tags": ["z"],
        "model-index": [{"name": "m", "results": []}],
    }
    for change in (
        {},
        {"license": "other"},
        {"tags": [1]},
        {"model-index": [{"name": 1, "results": []}]},
        {"pipeline_tag": 1},
    ):
        card = ModelCard(f"---\n{yaml.safe_dump(good | change)}---\n", ignore_metadata_errors=True)
        if change:
            with pytest.raises(ValueError, match="errors"):
                card.validate()
        else:
            card.validate()
