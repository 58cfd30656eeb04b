"""`python -m gpu_check`: runs the stages, prints a table, writes `gpu_check.json` and a page of it."""

import datetime
import sys
import time
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from step_runtime.backends.gpus import cuda_driver_is_present, driver_version, find_gpu
from step_runtime.benchmark.machine import versions

from gpu_check.catalogue import STAGES, Stage, stage_named
from gpu_check.page import write_page
from gpu_check.results import BAD, UNKNOWN_GPU, CheckResult, StageResult, Status, write_record
from gpu_check.runner import Run, run_stages
from gpu_check.stage import Device
from step.cli import OneLineCommand
from step.errors import StepError

_COLOURS: dict[Status, str] = {
    "running": "yellow",
    "passed": "green",
    "skipped": "yellow",
    "failed": "bold red",
    "timed out": "bold red",
    "crashed": "bold red",
}
_SHOWN_PROBLEMS = 3


@click.command(cls=OneLineCommand)
@click.option("--only", default="", help="Stages, separated by commas; all of them otherwise.")
@click.option("--minutes", type=float, default=7.0, show_default=True, help="Time limit of the whole check.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "none"]),
    default="auto",
    show_default=True,
    help="none: without a GPU, at small sizes, to check the check itself. auto: cuda where there is a driver.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/gpu-check"), show_default=True)
def main(only: str, minutes: float, device: str, out: Path) -> None:
    """Checks and measures everything that this machine allows: one table, OUT/gpu_check.json, OUT/gpu_check.md.

    Exit code 1 if a stage failed, crashed or was cut; the others go on. A stage's log is OUT/STAGE.log.
    """
    stages = _chosen(only)
    if not minutes > 0:
        raise StepError(f"--minutes is {minutes:g}; it must be above 0")
    try:
        (out / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StepError(f"--out {out}: {error.strerror}; name a folder that can be written") from error
    console = Console()
    chosen: Device = "none" if device == "none" or (device == "auto" and not cuda_driver_is_present()) else "cuda"
    name = _device_name(chosen)
    console.print(f"device: {name}; {len(stages)} stages, at most {minutes:g} minutes", highlight=False)

    def tell(result: StageResult) -> None:
        line = f"{result.name}: {result.status}, {result.seconds:.1f} s"
        console.print(line, style=_COLOURS[result.status], highlight=False)

    start_s = time.monotonic()
    with console.status("stages are running"):
        results = run_stages(stages, Run(chosen, out, start_s + 60 * minutes), tell)
    check = CheckResult(
        device=name,
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions() | ({"driver": driver} if (driver := driver_version()) else {}),
        seconds=time.monotonic() - start_s,
        stages=tuple(results),
    )
    console.print(_table(check))
    write_record(check, out / "gpu_check.json")
    write_page(check, out / "gpu_check.md")
    console.print(f"{out / 'gpu_check.json'}, {out / 'gpu_check.md'}", highlight=False, soft_wrap=True)
    if any(result.status in BAD for result in results):
        sys.exit(1)


def _chosen(only: str) -> list[Stage]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if stage_named(name) is None:
            raise StepError(f"--only {name}: no such stage; there are {', '.join(stage.name for stage in STAGES)}")
    return [stage for stage in STAGES if not names or stage.name in names]


def _device_name(device: Device) -> str:
    """Names the GPU; where it cannot be used it is "unknown GPU", and the stage `environment` says why."""
    if device == "none":
        return "none"
    try:
        return find_gpu("auto").name
    except StepError:
        return UNKNOWN_GPU


def _table(check: CheckResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=f"{check.device}: {check.seconds:.0f} s")
    for column in ("stage", "status", "s", "figures", "what was wrong"):
        table.add_column(column, overflow="fold", justify="right" if column in ("s", "figures") else "left")
    for result in check.stages:
        shown = list(result.problems[:_SHOWN_PROBLEMS])
        if len(result.problems) > _SHOWN_PROBLEMS:
            shown.append(f"and {len(result.problems) - _SHOWN_PROBLEMS} more in {result.name}.json")
        colour = _COLOURS[result.status]
        status, seconds, figures = f"[{colour}]{result.status}[/]", f"{result.seconds:.1f}", str(len(result.figures))
        table.add_row(result.name, status, seconds, figures, escape("\n".join(shown)))
    return table
