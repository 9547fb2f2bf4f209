"""A process that has imported everything, and forks a run whenever it is told to: so a life of a run costs no imports.

As a module it is how a test speaks to it; as a program it is that process, of one thread but for an allocator's own.
"""

import ctypes
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

RECIPES = Path(__file__).parents[2] / "recipes"
PATIENCE = 240.0  # seconds that anything may take


class Life:
    """A run in a process of its own, that of a recipe's command line; its file `trace` says where it is."""

    def __init__(self, warm: "Warm", pid: int, trace: Path) -> None:
        self.warm, self.pid, self.trace = warm, pid, trace

    def entered(self, phase: str) -> int:
        """How often it has entered a phase; the steps enter theirs once a step."""
        return self.phases().count(phase)

    def phases(self) -> list[str]:
        return [phase for phase, _ in self.moments()]

    def moments(self) -> list[tuple[str, float]]:
        """Each phase that it entered, and when by the monotonic clock."""
        lines = [line.split() for line in self.trace.read_text().splitlines()]
        return [(phase, float(moment)) for phase, moment in lines]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{self.phases()[-1:]}\n{self.stderr()}"
            time.sleep(0.001)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return self.warm.ask({"wait": self.pid})

    def stderr(self) -> str:
        return self.trace.with_suffix(".err").read_text()

    def stdout(self) -> str:
        return self.trace.with_suffix(".out").read_text()


class Warm:
    """The warm process, seen from a test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lives = folder, 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def ask(self, question: Mapping[str, Any]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the warm process has ended"
        return json.loads(answer)

    def start(self, recipe: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Life:
        """A life of `recipes/{recipe}.py` with these arguments, under an ordinary user's rights to files."""
        self.lives += 1
        trace = self.folder / f"life-{self.lives}.trace"
        for suffix in (".trace", ".out", ".err"):
            trace.with_suffix(suffix).touch()
        question = {"recipe": recipe, "arguments": list(arguments), "trace": str(trace)}
        return Life(self, self.ask(question | {"environment": dict(environment or {})}), trace)

    def run(self, recipe: str, arguments: Sequence[str], **options: Any) -> tuple[int, Life]:
        """A whole life, and its exit code."""
        life = self.start(recipe, arguments, **options)
        return life.wait(), life

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        assert self.process.stdout
        self.process.stdout.close()


# The process itself.


def serve() -> None:
    from accelerate.utils import gather_object  # noqa: F401
    from sklearn.datasets import load_digits

    from delta_vae_lab import console, figures, image_run, text_run, training  # noqa: F401

    load_digits()
    threads = {file.read_text().strip() for file in Path("/proc/self/task").glob("[0-9]*/comm")}
    assert threads <= {Path("/proc/self/comm").read_text().strip(), "jemalloc_bg_thd"}, "a fork would lose a thread"
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer: Any = wait_for(question["wait"])
        else:
            answer = os.fork()
            if answer == 0:
                live(**question)
        print(json.dumps(answer), flush=True)


def wait_for(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGABRT)  # it says where it is
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def live(recipe: str, arguments: list[str], environment: dict[str, str], trace: str) -> None:
    """Be the recipe, and end as it would: with its exit code, or 1 and a traceback."""
    code = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        for suffix, descriptor in ((".out", 1), (".err", 2)):
            os.dup2(os.open(Path(trace).with_suffix(suffix), os.O_WRONLY | os.O_APPEND), descriptor)
        faulthandler.enable()
        os.environ |= environment
        obey_permissions()
        report_phases(os.open(trace, os.O_WRONLY | os.O_APPEND))
        sys.argv = [f"{recipe}.py", *arguments]
        code = run_recipe(recipe)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def obey_permissions() -> None:
    """Give up what lets root write where the permission bits say no: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None)
    if os.geteuid() != 0 or not hasattr(libc, "capset"):
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable; of the first 32 capabilities, of the others
    libc.capget(header, sets)
    for kind in (0, 1, 2):
        sets[kind] &= ~(1 << 1 | 1 << 2)
    assert libc.capset(header, sets) == 0


def run_recipe(recipe: str) -> int:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(recipe, RECIPES / f"{recipe}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parsed = module.parse_arguments()
    with module.one_line_errors(parsed.debug):
        module.main(parsed)
    return 0


def report_phases(descriptor: int) -> None:
    """From here on the run writes, at once, that it enters start, steps, evaluation, checkpoint, export and end."""
    from delta_vae_lab import image_run, reporting, text_run, training

    def enter(phase: str) -> None:
        os.write(descriptor, f"{phase} {time.monotonic()}\n".encode())

    def within(holder: ModuleType | type, name: str, phase: str, after: str | None) -> None:
        inner = getattr(holder, name)

        def outer(*arguments: Any, **named: Any) -> Any:
            enter(phase)
            found = inner(*arguments, **named)
            if after is not None:
                enter(after)
            return found

        setattr(holder, name, outer)

    enter("start")
    within(training, "rate_weight", "steps", None)  # the first thing a step does
    within(training, "save_checkpoint", "checkpoint", "steps")
    within(reporting.HeldoutBound, "__call__", "evaluation", "steps")
    for module in (text_run, image_run):
        within(module, "write_report", "export", "end")


if __name__ == "__main__":
    serve()
