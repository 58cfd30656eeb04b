"""`step-doctor [MODEL] [VIDEO]`."""

import sys
from pathlib import Path

import click

from step.cli import OneLineCommand, examples, find_reporter
from step.files.atomic import check_outputs
from step.parameters import FilePath
from step_runtime.doctor.finding import Finding
from step_runtime.doctor.findings import examine
from step_runtime.doctor.next_command import find_next_command
from step_runtime.doctor.report import Report


@click.command(
    cls=OneLineCommand,
    epilog=examples("step-doctor", "step-doctor toy", "step-doctor build/bundle video.mp4 --json doctor.json"),
)
@click.argument("model", required=False)
@click.argument("video", required=False)
@click.option("--json", "json_file", type=FilePath(), help="Write all findings there.")
def main(model: str | None, video: str | None, json_file: Path | None) -> None:
    """Says what this machine has, what each backend does here, and what to type next.

    MODEL (a bundle, a checkpoint or toy) is checked and opened in every backend; of VIDEO a frame is decoded. Exit code
    1 if the model cannot run or the video cannot be read.
    """
    reporter = find_reporter()
    check_outputs({"--json": json_file})
    findings: list[Finding] = []
    with reporter.progress("looking", unit="findings") as progress:
        for finding in examine(model, video):
            findings.append(finding)
            progress.update(len(findings), status=f"after {finding.section}: {finding.name}")
    report = Report(tuple(findings), find_next_command(findings, model, video))
    if json_file is not None:
        report.write(json_file)
    if sys.stdout.isatty():
        reporter.result(report.table())
    else:
        for line in report.lines():
            reporter.result(line)
    reporter.result(f"next: {report.next_command}")
    if not report.passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
