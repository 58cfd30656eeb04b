"""What step-verify prints and writes."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.markup import escape
from rich.table import Table

from step.bundles.manifest import ParityRow
from step.files.atomic import atomic_path
from step.parity.check import DETECTIONS_APART


class _Report(BaseModel):
    """What both kinds share: the bundle's folder, the reference and what was compared with it.

    In the file, a number that is not finite is null.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str
    backends: tuple[str, str]

    def write(self, file: Path) -> None:
        """Writes the report as JSON.

        Raises:
            StepError: the file cannot be written.
        """
        with atomic_path(file) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n")


class ComparisonReport(_Report):
    """What a comparison found: one row per graph, clip and tensor."""

    rows: tuple[ParityRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every comparison is within its tolerance."""
        return all(row.passed for row in self.rows)

    def table(self) -> Table:
        """A line per graph and tensor: the largest error of all clips, and the mean over them."""
        reference, candidate = self.backends
        table = Table(
            title=escape(f"{candidate} against {reference}, clips: {len({row.clip for row in self.rows})}"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for title in ("graph", "tensor"):
            table.add_column(title, no_wrap=True)
        for title in ("max error", "mean error", "tolerance", "result"):
            table.add_column(title, justify="right", no_wrap=True)
        groups: dict[tuple[str, str], list[ParityRow]] = {}
        for row in self.rows:
            groups.setdefault((row.graph, row.tensor), []).append(row)
        shown = ""
        for (graph, tensor), group in groups.items():
            worst = max(group, key=lambda row: (not row.passed, row.max_error))
            mean = sum(row.mean_error for row in group) / len(group)
            numbers = [_number(value, tensor) for value in (worst.max_error, mean, worst.tolerance)]
            kind = "detections matched" if tensor == DETECTIONS_APART else tensor
            result = "pass" if worst.passed else "[red]FAIL[/]"
            table.add_row("" if graph == shown else graph, kind, *numbers, result)
            shown = graph
        return table


class Divergence(BaseModel):
    """The first tensor beyond the bound.

    Attributes:
        graph: that it is in.
        tensor, node, op_type: its name, and the node that computes it.
        module: path of the PyTorch module that it comes from; "" outside the networks.
        clip: on which its error is the largest.
        error: relative to the largest value of the reference; inf where a value is not finite.
        largest: that value; inf where the reference itself is not finite.
        keep_fp32: what `step-export --keep-fp32` has to be given; None if nothing that it can keep would help.
    """

    model_config = ConfigDict(frozen=True)

    graph: str
    tensor: str
    node: str
    op_type: str
    module: str
    clip: str
    error: float
    largest: float
    keep_fp32: str | None


class SearchReport(_Report):
    """What a search found: the graphs in its order, the largest error allowed, and where it ended."""

    graphs: tuple[str, ...]
    bound: float
    first: Divergence | None

    @property
    def passed(self) -> bool:
        """Whether every tensor is within the bound."""
        return self.first is None

    def text(self, *, kept: tuple[str, ...]) -> str:
        """What was found, and how to export the model so that it is repaired.

        Args:
            kept: the `--keep-fp32` patterns that the bundle was exported with.
        """
        first = self.first
        if first is None:
            return f"every tensor of {', '.join(self.graphs)} is within {self.bound:g}"
        lines = [
            f"first tensor beyond {self.bound:g} in {first.graph}: {first.tensor}, on clip {first.clip!r}",
            f"  node    {first.node} ({first.op_type})",
            f"  module  {first.module or 'none, it is outside the networks'}",
            f"  error   {_error(first)}",
        ]
        if first.keep_fp32 is None:
            lines.append("  repair  none with --keep-fp32")
        else:
            options = " ".join(f"--keep-fp32 '{pattern}'" for pattern in (*kept, first.keep_fp32))
            lines.append(f"  repair  step-export --precision fp16 {options}")
        return "\n".join(lines)


def _number(value: float, tensor: str) -> str:
    if value == float("inf"):
        return "not finite"
    return f"{100 * (1 - value):.1f} %" if tensor == DETECTIONS_APART else f"{value:.1e}"


def _error(finding: Divergence) -> str:
    if finding.largest == float("inf"):
        return "the reference is not finite: a weight beyond half's range?"
    if finding.error == float("inf"):
        return f"not finite, where the reference's largest value is {finding.largest:.3g}"
    return f"{finding.error:.2g} of the reference's largest value, {finding.largest:.3g}"
