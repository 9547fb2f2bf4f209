"""Rounds, rows, and the file that results are kept in."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import shares, start_up
from benchmarks.measurement import Measurements, Settings, compare, in_fresh_process, in_rounds, plain
from benchmarks.results import check_device, default_file, entry, write

CPU = torch.device("cpu")


def test_rounds_take_all_in_turn_after_one_call_in_vain() -> None:
    order: list[str] = []

    def timer(name: str) -> float:
        order.append(name)
        return float(len(order))

    measured = in_rounds({"a": lambda: timer("a"), "b": lambda: timer("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert measured["a"].tolist() == [3, 5]
    assert measured["b"].tolist() == [4, 6]


def test_a_ratio_is_taken_within_each_round() -> None:
    row = compare("r", "s", np.array([1.0, 8.0, 9.0]), "p", np.array([2.0, 4.0, 1.0]), at_most=3.0)
    assert (row.ours, row.theirs, row.ratio, row.ratio_min, row.ratio_max) == (8.0, 2.0, 2.0, 0.5, 9.0)
    assert (row.at_least, row.at_most) == (None, 3.0)


def test_a_row_without_a_peer_keeps_its_target() -> None:
    row = plain("r", "s", np.array([3.0, 1.0, 2.0]), at_most=0.5)
    assert (row.ours, row.ours_min, row.ours_max, row.ratio, row.at_most) == (2.0, 1.0, 3.0, None, 0.5)


def test_the_shares_of_a_run_are_those_of_its_operations() -> None:
    a, b = torch.randn(512, 512), torch.randn(1, 1, 64, 64)

    def run() -> None:
        for _ in range(3):
            torch.mm(a, a)
        torch.empty(20_000).exponential_()
        torch.nn.functional.scaled_dot_product_attention(b, b, b, is_causal=True)

    measured = shares.shares(run)
    assert sum(measured.values()) == pytest.approx(1)
    assert measured["products of matrices"] == max(measured.values())
    assert min(measured["random numbers"], measured["attention"]) > 0
    assert measured["convolutions"] == 0


def test_a_file_keeps_the_benchmarks_that_were_not_measured_again(tmp_path: Path) -> None:
    measured = Measurements([plain("r", "s", np.array([1.0]))], {"tokens": 4}, ["A note."])
    file = tmp_path / "out" / "cpu.json"
    write(file, CPU, {"a": {"rows": 1}, "b": {"rows": 2}})
    write(file, CPU, {"b": entry(measured, Settings(3, CPU))})
    written = json.loads(file.read_text())
    assert written["benchmarks"]["a"] == {"rows": 1}
    one = written["benchmarks"]["b"]
    assert one.keys() == {"command", "commit", "threads", "versions", "settings", "notes", "rows"}
    assert one["settings"] == {"rounds": 3, "tokens": 4}
    assert one["rows"][0]["row"] == "r"
    assert written["device"].endswith(" CPU")
    assert default_file(CPU).name == f"benchmarks-{written['device'].lower().replace(' ', '-')}.json"


def test_results_of_two_devices_are_no_one_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"device": "an abacus", "benchmarks": {}}')
    with pytest.raises(ValueError, match="holds results of an abacus; write those of .* CPU to another file"):
        check_device(file, CPU)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks\.nothing failed:.*No module named benchmarks\.nothing"):
        in_fresh_process("benchmarks.nothing", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text"], "text: is no benchmark; use text-training, "),
        (["--threads", "0"], "--threads 0: use at least 1"),
        (["--repeats", "0"], "--repeats 0: use at least 1"),
        (["--smoke", "--save"], "--save with --smoke, which measures nothing worth keeping"),
        (["--device", "cuda:99"], "--device cuda:99: torch finds no CUDA device here; use cpu"),
    ],
    ids=["name", "threads", "repeats", "save", "device"],
)
def test_what_cannot_be_measured_is_a_one_line_error(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--device" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_priors_import_nothing_but_ours_above_what_they_are_timed_against() -> None:
    modules = "import sys, json; print(json.dumps(sorted(sys.modules)))"

    def imported(statement: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", f"{statement}\n{modules}"], capture_output=True, text=True, check=True
        )
        return set(json.loads(done.stdout))

    above = imported(start_up.PRIORS) - imported(start_up.LIBRARIES)
    assert {name.partition(".")[0] for name in above} == {"delta_vae_core", "delta_vae_priors"}


def test_the_help_of_the_command_imports_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *start_up.HELP], capture_output=True, text=True, check=True
    )
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "delta_vae_lab.cli" in imported
    assert not {"torch", "transformers", "numpy"} & set(imported)


FAST = [
    "text-training",
    "text-generation",
    "attention",
    "image-training",
    "image-sampling",
    "shares",
    "data-loading",
    "prior",
]
FRESH = [pytest.param(name, marks=pytest.mark.slow) for name in ("text-memory", "start-up", "two-processes")]


@pytest.mark.parametrize("name", [*FAST, *FRESH])
def test_every_benchmark_runs_and_writes_what_it_prints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "smoke.json"
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, "--smoke", "--threads", threads, "--output", str(file)])
    command.main()
    printed = capsys.readouterr().out
    written = json.loads(file.read_text())["benchmarks"]
    assert list(written) == [name]
    assert written[name]["command"].startswith(f"python -m benchmarks {name} --smoke")
    for row in written[name]["rows"]:
        assert row["row"] in printed
        assert row["ours_min"] <= row["ours"] <= row["ours_max"]
        if row["peer"] is not None:
            assert min(row["ours"], row["theirs"]) > 0
            assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])  # of one round


def test_every_benchmark_is_tested() -> None:
    tested = {*FAST, *(str(name.values[0]) for name in FRESH)}
    assert tested == set(command.BENCHMARKS)
