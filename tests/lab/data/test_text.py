"""Data specs: what is trained on, what is held out, what names it, and what is refused in one line."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, IterableDataset, load_dataset

from delta_vae_lab.data import StreamingTextBatches, TextBatches, hub, load_text, tokenize, train_tokenizer, word_count
from delta_vae_lab.data.text_files import LM1B_HELDOUT, LM1B_TRAIN

LM1B_LAYOUT = Path(__file__).parents[3] / "../shared/data/lm1b-layout"


def digest(sentences: list[str]) -> dict[str, Any]:
    text = "".join(f"{sentence}\n" for sentence in sentences)
    return {"sentences": len(sentences), "sha256": sha256(text.encode()).hexdigest()}


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def lm1b(tmp_path: Path) -> Path:
    root = tmp_path / "archive/1-billion-word-language-modeling-benchmark-r13output"
    for shard in (0, 1, 2, 99):
        write(root / LM1B_TRAIN / f"news.en-{shard:05}-of-00100", f"shard {shard} .", f"more of {shard} .")
    for shard in (0, 1):
        write(root / LM1B_HELDOUT / f"news.en.heldout-{shard:05}-of-00050", f"heldout {shard} .")
    return tmp_path / "archive"


# What is read


def test_a_path_may_have_the_spaces_and_signs_that_systems_put_into_names(tmp_path: Path) -> None:
    for name in ("at 9.41\u202fAM.txt", "a\xa0b.txt", "\U0001f469\u200d\U0001f52c.txt"):
        assert len(load_text(str(write(tmp_path / name, "one", "two"))).heldout) == 1


def test_a_file_holds_out_its_last_twentieth(tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(100)]
    text = load_text(str(write(tmp_path / "news.txt", *lines)))
    assert (text.train, text.heldout, text.name) == (lines[:95], lines[95:], "news.txt")
    assert text.fingerprint["train"] == digest(lines[:95])
    assert text.fingerprint["heldout"] == digest(lines[95:])


def test_only_a_newline_ends_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "news.txt"
    file.write_bytes("\ufeffone\u2028still one\r\n\n  two\x85\x0bstill two \n \t\nthree".encode())
    text = load_text(str(file))
    assert text.train + text.heldout == ["one\u2028still one", "two\x85\x0bstill two", "three"]


def test_a_folder_trains_on_all_its_text(tmp_path: Path) -> None:
    write(tmp_path / "data/b.txt", "b")
    write(tmp_path / "data/a/deep.txt", "a")
    write(tmp_path / "data/notes.md", "not text")
    text = load_text(str(tmp_path / "data"))
    assert (text.train, text.heldout, text.name) == (["a"], ["b"], "data")


@pytest.mark.parametrize("heldout", ["heldout.txt", "Heldout-2/x.txt", "valid.txt", "validation/x.txt", "test/a/b.txt"])
def test_a_folder_holds_out_what_is_named_so(tmp_path: Path, heldout: str) -> None:
    write(tmp_path / "train.txt", "one", "two")
    write(tmp_path / heldout, "three")
    text = load_text(str(tmp_path))
    assert (text.train, text.heldout) == (["one", "two"], ["three"])


def test_a_test_set_beside_a_validation_set_is_neither_trained_on_nor_held_out(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        write(tmp_path / f"{name}.txt", name)
    text = load_text(str(tmp_path))
    assert (text.train, text.heldout) == (["train"], ["valid"])


@pytest.mark.parametrize("inside", ["", "1-billion-word-language-modeling-benchmark-r13output"])
def test_lm1b_follows_tensor2tensors_protocol(lm1b: Path, inside: str) -> None:
    text = load_text(str(lm1b / inside))
    assert text.train == [f"{words} {shard} ." for shard in (1, 2, 99) for words in ("shard", "more of")]
    assert text.heldout == ["heldout 0 ."]
    assert text.name == (inside or "archive")
    assert text.fingerprint["source"].startswith("3 of 99 training shards in the layout of LM1B")


def test_parquet_files_are_read_as_datasets_lays_them_out(parquet: Path, sentences: list[str]) -> None:
    text = load_text(str(parquet))
    assert (text.train, text.heldout, text.name) == (sentences, ["held out text", "and more of it"], "copy")
    assert text.fingerprint["train"] == digest(sentences)


def test_nulls_and_blanks_are_no_sentences(tmp_path: Path) -> None:
    Dataset.from_dict({"text": ["one", None, " ", "\ttwo ", "three"]}).to_parquet(tmp_path / "train.parquet")
    text = load_text(str(tmp_path))
    assert text.train + text.heldout == ["one", "two", "three"]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_column_of_sentences_can_be_chosen(tmp_path: Path, streaming: bool) -> None:
    for split in ("train", "test"):
        Dataset.from_dict({"sentence": [split], "label": [1]}).to_parquet(tmp_path / f"{split}.parquet")
    text = load_text(str(tmp_path), column="sentence", streaming=streaming)
    assert (list(text.training_sentences()), text.heldout) == (["train"], ["test"])


def test_a_stream_has_the_sentences_and_the_fingerprint_of_the_list(parquet: Path, lm1b: Path) -> None:
    for folder in (parquet, lm1b):
        listed, streamed = load_text(str(folder)), load_text(str(folder), streaming=True)
        assert isinstance(streamed.train, IterableDataset)
        assert [row["text"] for row in streamed.train] == list(streamed.training_sentences()) == listed.train
        assert (
            list(streamed.training_sentences(limit=2)) == list(listed.training_sentences(limit=2)) == listed.train[:2]
        )
        assert (streamed.heldout, streamed.fingerprint) == (listed.heldout, listed.fingerprint)


@pytest.mark.parametrize("spec", ["lm1b", "billion-word-benchmark/lm1b"])
@pytest.mark.parametrize("streaming", [False, True])
def test_lm1b_on_the_hub_is_its_parquet_copy(
    monkeypatch: pytest.MonkeyPatch, parquet: Path, spec: str, streaming: bool, sentences: list[str]
) -> None:
    def load(name: str, config: None, revision: str, streaming: bool) -> Any:
        assert (name, config, revision) == ("billion-word-benchmark/lm1b", None, "refs/convert/parquet")
        return load_dataset(str(parquet), streaming=streaming)

    monkeypatch.setattr(hub, "load_dataset", load)
    text = load_text(spec, streaming=streaming)
    assert list(text.training_sentences()) == sentences
    assert text.name == "billion-word-benchmark/lm1b"
    assert text.fingerprint["source"] == "billion-word-benchmark/lm1b refs/convert/parquet, held out: test"
    assert text.fingerprint["train"]["sentences"] == (None if streaming else 27)


def test_training_batches_come_from_a_list_or_a_stream(parquet: Path) -> None:
    tokenizer = train_tokenizer(["one"], vocab_size=259)
    for streaming, kind in ((False, TextBatches), (True, StreamingTextBatches)):
        batches = load_text(str(parquet), streaming=streaming).training_batches(
            tokenizer, batch_size=4, seed=0, max_length=40, rank=1, world_size=2
        )
        assert isinstance(batches, kind)
        assert next(batches.iterate())[0].rows == [1, 3]


def test_a_word_is_what_whitespace_separates_and_the_end_is_one_more() -> None:
    assert word_count("The Court 's ruling .") == 6


@pytest.mark.skipif(not LM1B_LAYOUT.is_dir(), reason="needs ../shared/data/lm1b-layout")
def test_the_archives_layout_in_earnest() -> None:
    text = load_text(str(LM1B_LAYOUT))
    assert (len(text.train), len(text.heldout)) == (84445, 2000)
    assert 1.7e6 < sum(map(word_count, text.train)) - len(text.train) < 1.9e6
    assert len(tokenize(train_tokenizer(text.train[:5000], 2000), text.heldout)) == 2000


# What is refused


@pytest.mark.parametrize("spec", ["no/such/file.txt", "nwes.txt", "./nothing", "/nothing/here", "a/b/c"])
def test_a_path_with_a_typo(spec: str) -> None:
    with pytest.raises(ValueError, match=f"^data '{spec}': no such file or folder, and not a name that a Hub data set"):
        load_text(spec)


@pytest.mark.parametrize("spec", ["lm2b", "nobody/nothing"])
def test_a_name_that_cannot_be_reached(spec: str) -> None:
    with pytest.raises(ValueError, match=f"data '{spec}': no such file or folder, and no Hub data set .* network"):
        load_text(spec)


def test_a_hub_data_set_that_is_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("Dataset scripts are no longer supported, but found bookcorpus.py")

    monkeypatch.setattr(hub, "load_dataset", load)
    with pytest.raises(ValueError, match="'bookcorpus' is a script, .* revision='refs/convert/parquet'"):
        load_text("bookcorpus")


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no parquet")
    for streaming in (False, True):
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_text(str(tmp_path), streaming=streaming)


def test_a_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no training text; give it \*.txt files"):
        load_text(str(tmp_path))
    write(tmp_path / "heldout.txt", "one")
    with pytest.raises(ValueError, match="holds no training text"):
        load_text(str(tmp_path))


def test_files_without_sentences(tmp_path: Path) -> None:
    write(tmp_path / "train.txt")
    with pytest.raises(ValueError, match=r"data 'train.txt' has no train sentences .* one sentence a line"):
        load_text(str(tmp_path / "train.txt"))
    write(tmp_path / "train.txt", "just one")
    with pytest.raises(ValueError, match=r"data 'train.txt' has no train sentences .* one sentence a line"):
        load_text(str(tmp_path / "train.txt"))
    write(tmp_path / "heldout.txt", " ")
    with pytest.raises(ValueError, match="has no heldout sentences"):
        load_text(str(tmp_path))


def test_binary_files_name_the_line_and_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_bytes(b"text\nte\0xt\n")
    with pytest.raises(ValueError, match=r"data.txt is not text: a NUL byte at line 2, byte 3; give a UTF-8"):
        load_text(str(file))
    file.write_bytes(b"text\n\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"data.txt is not UTF-8 at line 3, byte 4; give a UTF-8"):
        load_text(str(file))


def test_lm1b_without_training_shards(lm1b: Path) -> None:
    for shard in lm1b.glob("*/training*/news.en-*"):
        if shard.name != "news.en-00000-of-00100":
            shard.unlink()
    with pytest.raises(ValueError, match="has no training shard news.en-00001-of-00100 to"):
        load_text(str(lm1b))


def test_lm1b_without_its_heldout_shard(lm1b: Path) -> None:
    next(lm1b.glob("*/heldout*/*heldout-00000*")).unlink()
    with pytest.raises(ValueError, match="news.en.heldout-00000-of-00050 is missing: LM1B is evaluated on this shard"):
        load_text(str(lm1b))


def test_a_stream_without_a_heldout_part(tmp_path: Path) -> None:
    file = write(tmp_path / "news.txt", "one", "two")
    with pytest.raises(ValueError, match="'news.txt' has no held-out part, which a stream needs"):
        load_text(str(file), streaming=True)


def test_columns_and_splits_that_are_not_there(tmp_path: Path) -> None:
    Dataset.from_dict({"sentence": ["one"], "label": [1]}).to_parquet(tmp_path / "train.parquet")
    for column in ("text", "label"):
        with pytest.raises(ValueError, match=rf"no text in a column '{column}' .* choose from \['sentence', 'label'\]"):
            load_text(str(tmp_path), column=column)
    (tmp_path / "train.parquet").rename(tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"has the splits \['test'\]; training needs one called 'train'"):
        load_text(str(tmp_path), column="sentence")
