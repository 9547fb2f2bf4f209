"""A byte that changed, or a file that was cut: it is found, named in one line, and never a silently wrong model."""

import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import TextDecoder
from delta_vae_encoders import TextEncoder
from delta_vae_lab.checkpoints import find_damage, latest_sound
from delta_vae_lab.export import repository_files
from delta_vae_lab.model_folder import save_model
from delta_vae_lab.publishing import publish
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.saved_model import load_model, load_processor
from delta_vae_priors import AR1Prior, AuxiliaryPrior
from tests.hub.conftest import image_run, text_run
from tests.reliability.small_run import train, trained

FILES = ["manifest.json", "model.safetensors", "optimizer.bin", "polyak.safetensors", "progress.json"]


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of six steps with a checkpoint every second, and its model. Not to be changed."""
    place = tmp_path_factory.mktemp("finished")
    return trained(place)


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """A run with an exported model of each kind. Not to be changed."""
    place = tmp_path_factory.mktemp("models")
    return {"text": text_run(RunFolder(place / "text")), "images": image_run(RunFolder(place / "images"))}


def damages(file: Path, places: Iterator[int] | list[int], seed: int = 0) -> Iterator[str]:
    """The file with one byte changed, and cut, at each of these places in turn; whole again in the end."""
    whole, chance = file.read_bytes(), random.Random(seed)
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ chance.randrange(1, 256)]) + whole[place + 1 :])
        yield f"byte {place} of {file.name} changed"
        file.write_bytes(whole[:place])
        yield f"{file.name} cut to {place} bytes"
    file.write_bytes(whole)


def scattered(files: list[Path], count: int) -> list[tuple[Path, list[int]]]:
    """`count` seeded places over these files: some in each, whatever its size, the rest by size."""
    chance = random.Random(1)
    chosen = [file for file in files for _ in range(min(10, file.stat().st_size))]
    chosen += chance.choices(files, [file.stat().st_size for file in files], k=count - len(chosen))
    return [(file, [chance.randrange(file.stat().st_size) for _ in range(chosen.count(file))]) for file in files]


def refused(load: Callable[[], object], file: Path, what: str) -> None:
    with pytest.raises(ValueError, match="damaged") as error:
        load()
    assert str(file) in str(error.value), what
    assert "\n" not in str(error.value), what


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# A run's checkpoints


def test_no_byte_of_a_manifest_can_change_unseen(run: RunFolder, seen: Callable[..., None]) -> None:
    newest = run.checkpoints / "step-00000006"
    manifest = newest / "manifest.json"
    size, found = manifest.stat().st_size, 0
    for what in damages(manifest, list(range(size))):
        damage = find_damage(newest)
        assert damage is not None, what
        assert "manifest.json" in damage, what
        assert "\n" not in damage
        found += 1
    assert found == 2 * size
    assert find_damage(newest) is None
    seen(bytes=size, changed=size, cut=size, found=found)


def test_two_files_of_a_checkpoint_that_changed_places_are_found(run: RunFolder) -> None:
    newest = run.checkpoints / "step-00000006"
    (newest / "model.safetensors").rename(newest / "aside")
    (newest / "polyak.safetensors").rename(newest / "model.safetensors")
    (newest / "aside").rename(newest / "polyak.safetensors")
    assert latest_sound(run.checkpoints) == run.checkpoints / "step-00000004"


def test_changed_bytes_of_a_checkpoint_are_found_and_the_one_before_is_taken(
    run: RunFolder, caplog: pytest.LogCaptureFixture, seen: Callable[..., None]
) -> None:
    newest, before = (run.checkpoints / f"step-0000000{step}" for step in (6, 4))
    files = sorted(file for file in newest.iterdir() if file.name != "manifest.json")
    assert {file.name for file in files} == {*FILES, "random_states_0.pkl"} - {"manifest.json"}
    tried = 0
    for file, places in scattered(files, 200):
        for what in damages(file, places):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "delta_vae_lab"):
                assert latest_sound(run.checkpoints) == before, what
            [record] = caplog.records
            message = record.getMessage()
            assert str(newest) in message, what
            assert file.name in message, what
            assert "\n" not in message, what
            tried += 1
    assert latest_sound(run.checkpoints) == newest
    seen(changed=tried // 2, cut=tried // 2, found=tried)


@pytest.mark.parametrize("name", FILES)
def test_a_run_resumed_from_a_damaged_checkpoint_is_the_run_that_was_not(
    name: str, run: RunFolder, finished: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    newest = run.checkpoints / "step-00000006"
    whole = (newest / name).read_bytes()
    next(damages(newest / name, [len(whole) // 2]))
    with caplog.at_level(logging.WARNING, "delta_vae_lab"):
        model = train(run, finished.path.parent / "tiny.yaml", resume=True)
    [message] = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert str(newest) in message
    assert name in message
    assert message.endswith("going back to the checkpoint before it")
    assert equal(model, DeltaVaeForCausalLM.from_pretrained(finished.model))
    assert find_damage(newest) is None
    assert (newest / "model.safetensors").read_bytes() == (
        finished.checkpoints / newest.name / "model.safetensors"
    ).read_bytes()


def test_a_run_is_not_resumed_with_a_damaged_tokenizer(
    run: RunFolder, finished: RunFolder, seen: Callable[..., None]
) -> None:
    tried = 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = run.model / name
        for what in damages(file, [file.stat().st_size * i // 10 for i in range(10)]):
            refused(lambda: train(run, finished.path.parent / "tiny.yaml", resume=True), file, what)
            tried += 1
    seen(tried=tried, refused=tried)


def test_a_damaged_model_of_a_run_is_made_anew_by_resuming(run: RunFolder, finished: RunFolder) -> None:
    (run.model / "model.safetensors").write_bytes(b"?")
    save_model(train(run, finished.path.parent / "tiny.yaml", resume=True), run.model)
    assert equal(load_model(str(run.model)), load_model(str(finished.model)))


def test_a_tokenizer_damaged_while_its_model_was_trained_is_not_sealed_as_sound(
    run: RunFolder, finished: RunFolder
) -> None:
    next(damages(run.model / "tokenizer.json", [5000]))
    save_model(DeltaVaeForCausalLM.from_pretrained(finished.model), run.model)
    refused(lambda: load_model(str(run.model)), run.model / "tokenizer.json", "")


# An exported model


LOADERS: dict[str, list[Callable[[Path], object]]] = {
    "text": [DeltaVaeForCausalLM.from_pretrained, lambda folder: load_model(str(folder))],
    "images": [DeltaVaeForImageGeneration.from_pretrained, lambda folder: load_model(str(folder))],
}


def copy_of(models: dict[str, RunFolder], kind: str, tmp_path: Path) -> RunFolder:
    shutil.copytree(models[kind].path, tmp_path / kind)
    return RunFolder(tmp_path / kind)


@pytest.mark.parametrize("kind", LOADERS)
def test_no_byte_of_the_checksums_can_change_unseen(
    kind: str, models: dict[str, RunFolder], tmp_path: Path, seen: Callable[..., None]
) -> None:
    folder = copy_of(models, kind, tmp_path).model
    checksums = folder / "checksums.json"
    size, tried = checksums.stat().st_size, 0
    for what in damages(checksums, list(range(size))):
        for load in LOADERS[kind]:
            refused(lambda load=load: load(folder), checksums, what)
        tried += 1
    seen(bytes=size, changed=size, cut=size, refused=tried)


@pytest.mark.parametrize("kind", LOADERS)
def test_changed_bytes_of_a_model_are_refused_by_the_name_of_the_file(
    kind: str, models: dict[str, RunFolder], tmp_path: Path, seen: Callable[..., None]
) -> None:
    run = copy_of(models, kind, tmp_path)
    files = sorted(file for file in run.model.iterdir() if file.name not in ("README.md", "checksums.json"))
    readers = {"text": {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}}
    assert {file.name for file in files} == {"config.json", "model.safetensors"} | readers.get(
        kind, {"preprocessor_config.json"}
    )
    tried = 0
    for file, places in scattered(files, 200):
        for what in damages(file, places):
            for load in LOADERS[kind]:
                refused(lambda load=load: load(run.model), file, what)
            if file.name == "preprocessor_config.json":
                refused(lambda: load_processor(str(run.model)), file, what)
            tried += 1
    for load in LOADERS[kind]:
        assert equal(load(run.model), load(models[kind].model))
    seen(changed=tried // 2, cut=tried // 2, refused=tried)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_damaged_model_is_not_published(kind: str, models: dict[str, RunFolder], tmp_path: Path) -> None:
    run = copy_of(models, kind, tmp_path)
    for file in [file for file in run.model.iterdir() if file.name != "README.md"]:
        for what in damages(file, [file.stat().st_size * 2 // 3]):
            refused(lambda: publish(run.path, "user/model", dry_run=True), file, what)


def downloaded(run: RunFolder, folder: Path, part: str | None = None) -> Path:
    """What `push` publishes of it, as a folder."""
    for upload in repository_files(run, "user/model", None, part):
        file = folder / upload.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(upload.content if isinstance(upload.content, bytes) else upload.content.read_bytes())
    return folder


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_published_has_checksums_of_its_own(
    kind: str, models: dict[str, RunFolder], tmp_path: Path, seen: Callable[..., None]
) -> None:
    folder = downloaded(models[kind], tmp_path)
    assert equal(load_model(str(folder)), load_model(str(models[kind].model)))
    kept = {file.name for file in models[kind].model.iterdir()} | {"modeling_delta_vae_shim.py"}
    files = [folder / name for name in sorted(kept - {"README.md"})]
    tried = 0
    for file, places in scattered(files, 100):
        for what in damages(file, places):
            refused(lambda: load_model(str(folder)), file, what)
            tried += 1
    seen(changed=tried // 2, cut=tried // 2, refused=tried)


PARTS: dict[str, Any] = {
    "encoder": TextEncoder,
    "decoder": TextDecoder,
    "prior": AR1Prior,
    "auxiliary_prior": AuxiliaryPrior,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_published_alone_is_verified_too(
    part: str, models: dict[str, RunFolder], tmp_path: Path
) -> None:
    folder = downloaded(models["text"], tmp_path, part)
    PARTS[part].from_pretrained(folder)
    for file in [file for file in folder.glob("*") if file.name in ("config.json", "model.safetensors")]:
        for what in damages(file, [file.stat().st_size // 2]):
            refused(lambda: PARTS[part].from_pretrained(folder), file, what)
    if (prior := folder / "prior/config.json").exists():
        AR1Prior.from_pretrained(folder, subfolder="prior")
        for what in damages(prior, [prior.stat().st_size // 2]):
            refused(lambda: AR1Prior.from_pretrained(folder, subfolder="prior"), prior, what)


# What is no damage


def test_a_folder_with_other_files_or_another_card_loads(models: dict[str, RunFolder], tmp_path: Path) -> None:
    folder = copy_of(models, "text", tmp_path).model
    (folder / "README.md").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    (folder / "adapter.safetensors").write_bytes(b"mine")
    assert equal(load_model(str(folder)), load_model(str(models["text"].model)))
    (folder / "tokenizer.json").unlink()  # it is missed by whoever asks for it
    DeltaVaeForCausalLM.from_pretrained(folder)


def test_a_folder_without_checksums_loads(models: dict[str, RunFolder], tmp_path: Path) -> None:
    for kind in LOADERS:
        folder = copy_of(models, kind, tmp_path).model
        (folder / "checksums.json").unlink()
        assert equal(load_model(str(folder)), load_model(str(models[kind].model)))


def test_a_folder_of_links_loads(models: dict[str, RunFolder], tmp_path: Path) -> None:
    """As the cache of the Hub lays out a snapshot."""
    (tmp_path / "snapshot").mkdir()
    for file in models["images"].model.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert equal(load_model(str(tmp_path / "snapshot")), load_model(str(models["images"].model)))


@pytest.mark.parametrize("kind", LOADERS)
def test_a_model_that_was_trained_further_is_saved_over_the_old_one(
    kind: str, models: dict[str, RunFolder], tmp_path: Path
) -> None:
    folder = copy_of(models, kind, tmp_path).model
    model = load_model(str(folder))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.save_pretrained(folder)
    if kind == "images":  # and with it what else is beside it, changed as well
        DeltaVaeImageProcessor.for_model(model.config, input_levels=255).save_pretrained(folder)
        assert load_processor(str(folder)).input_levels == 255
    else:
        (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    again = load_model(str(folder))
    assert equal(again, model)
    assert not equal(again, load_model(str(models[kind].model)))
    next(damages(folder / "model.safetensors", [2000]))
    refused(lambda: load_model(str(folder)), folder / "model.safetensors", "saved anew")


def test_shards_are_verified(models: dict[str, RunFolder], tmp_path: Path) -> None:
    model = load_model(str(models["text"].model))
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert equal(load_model(str(tmp_path)), model)
    for file in (*shards, tmp_path / "model.safetensors.index.json"):
        for what in damages(file, [file.stat().st_size - 10]):
            refused(lambda: load_model(str(tmp_path)), file, what)
    (tmp_path / "checksums.json").unlink()
    for content in ("{", "[]", '{"weight_map": []}'):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        refused(lambda: load_model(str(tmp_path)), tmp_path / "model.safetensors.index.json", content)


def test_shards_saved_over_a_model_and_the_reverse_are_what_loads(models: dict[str, RunFolder], tmp_path: Path) -> None:
    folder = copy_of(models, "text", tmp_path).model
    model = load_model(str(folder))
    for size in ("5KB", "1GB", "5KB"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        model.save_pretrained(folder, max_shard_size=size)
        assert equal(load_model(str(folder)), model)


def test_what_changed_by_hand_says_how_to_go_on(models: dict[str, RunFolder], tmp_path: Path) -> None:
    folder = copy_of(models, "text", tmp_path).model
    config = folder / "generation_config.json"
    config.write_text(config.read_text().replace("{", '{"top_k": 7,', 1))
    with pytest.raises(ValueError, match=r"or delete checksums\.json beside it if the change is yours"):
        load_model(str(folder))
    (folder / "checksums.json").unlink()
    assert load_model(str(folder)).generation_config.top_k == 7
