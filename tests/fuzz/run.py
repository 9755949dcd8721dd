"""`make fuzz`: all targets for some minutes, a table at the end; exit code 1 for any finding."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import Progress, TaskID

from tests.fuzz.supervisor import Supervisor
from tests.fuzz.tally import FINDINGS, Tally, make_table, save_tallies
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Answer

RUNS = Path("runs")
HANG_S = 20.0
MAX_FINDINGS = 20  # of a target, saved and printed


def fuzz(
    name: str,
    *,
    seed: int,
    directory: Path,
    goes_on: Callable[[Tally], bool],
    found: Callable[[Path], None],
) -> Tally:
    """Run one target; save the inputs with findings in `directory` and give their paths to `found`."""
    tally, random = Tally(name, seed), Random(f"{name} {seed}")
    with Supervisor(name, hang_s=HANG_S) as supervisor:
        supervisor.start()
        while goes_on(tally) and tally.findings < MAX_FINDINGS:
            number = tally.tries
            data = TARGETS[name].generate(random)
            answer = supervisor.run(data)
            tally.counts[answer.result] += 1
            tally.peak_mb = supervisor.peak_mb
            if answer.result in FINDINGS:
                found(save_finding(data, answer, directory / f"{name}-{seed}-{number}"))
    return tally


def save_finding(data: bytes, answer: Answer, path: Path) -> Path:
    """Write the input, and what happened in a second file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_name(f"{path.name}.txt").write_text(f"{answer.result}\n{answer.detail}\n", errors="replace")
    return path


def run_all(minutes: float, seed: int) -> int:
    """Share the time between the targets; return the exit code."""
    share_s = minutes * 60 / len(TARGETS)
    tallies: list[Tally] = []
    with Progress(console=Console(stderr=True)) as progress:

        def found(path: Path) -> None:
            text = f"seed {seed}: {path}; repeat with make fuzz REPEAT={path}"
            progress.console.print(text, soft_wrap=True)

        for name in TARGETS:
            bar = progress.add_task(name, total=share_s, start=False)

            def goes_on(tally: Tally, bar: TaskID = bar) -> bool:
                progress.start_task(bar)  # the start of the child process is not counted
                elapsed_s = progress.tasks[bar].elapsed or 0.0
                text = f"{tally.target}: {tally.tries} tries, {tally.findings} findings"
                progress.update(bar, completed=min(elapsed_s, share_s), description=text)
                return elapsed_s < share_s

            tallies.append(fuzz(name, seed=seed, directory=RUNS / "fuzz", goes_on=goes_on, found=found))
    Console().print(make_table(tallies))
    save_tallies(tallies, RUNS / "fuzz.json")
    return int(any(tally.findings for tally in tallies))


def repeat(path: Path) -> int:
    """Run one saved input again; return the exit code."""
    with Supervisor(path.name.split("-")[0], hang_s=HANG_S) as supervisor:
        answer = supervisor.run(path.read_bytes())
    print(answer.result, answer.detail, sep="\n")
    return int(answer.result in FINDINGS)


def main() -> int:
    """Parse the arguments of `make fuzz`."""
    parser = argparse.ArgumentParser("python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together; default: 5")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices; default: 0")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run one saved input again")
    options = parser.parse_args()
    return repeat(options.repeat) if options.repeat else run_all(options.minutes, options.seed)


if __name__ == "__main__":
    sys.exit(main())
