"""Videos as rows of a Ray Data pipeline, on this machine or on a cluster."""

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from step.cpus import available_cpus
from step.errors import StepError
from step_runtime.batch.output import Output
from step_runtime.batch.ray_worker import LOCATION, NAME, PROBLEM, RECORD, RayWorker
from step_runtime.batch.records import VideoRecord
from step_runtime.batch.video_list import Video, shown_location
from step_runtime.batch.worker_process import Performer

INSTALL = "pip install 'step-trt[batch]'"
_MOST_BLOCKS = 10_000
"""The driver keeps some kilobytes for each block."""
_ANSWER_S = 10.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # actors without a GPU keep what this process may see
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@dataclass(frozen=True)
class RayOptions:
    """Where the pipeline runs.

    Attributes:
        address: of a cluster, as `ray.init` takes it; None starts Ray on this machine for the time of the run.
        workers: actors; None takes one for each GPU, or for each CPU where there is none.
        gpus: that each actor has for itself; None takes one where the cluster has any.
        cpus: that each actor is counted with.
    """

    address: str | None = None
    workers: int | None = None
    gpus: int | None = None
    cpus: int = 1


def check_ray() -> None:
    """Refuses, before the videos are looked for, a machine without Ray.

    Raises:
        StepError: it is not installed; the message says what runs without.
    """
    try:
        import ray.data
    except ModuleNotFoundError as error:
        raise StepError(
            f"step-batch runs on Ray, which is not installed ({error.name}); install it with: {INSTALL}, or give "
            "--shard 0/1, which needs none"
        ) from error
    del ray


def check_address(address: str) -> None:
    """Refuses an address at which nothing listens, for which Ray itself would look for minutes.

    Raises:
        StepError: nobody answers, or it is no address.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdecimal()):
        raise StepError(f"--address is {address!r}; give auto, or HOST:PORT such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S):
            pass
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StepError(
            f"cannot reach the Ray cluster {address}: {said}; `ray status` there says whether it runs"
        ) from error


def run_on_ray(
    videos: Sequence[Video], output: Output, make: Callable[[], Performer], options: RayOptions, *, detections: bool
) -> Iterator[VideoRecord]:
    """Runs videos; gives their records as they are settled.

    Args:
        videos: in the order in which they are begun.
        output: where results and records go; every node sees it under the same absolute path.
        make: makes a worker; it is sent to the actors.
        options: where.
        detections: whether every detection is kept.

    Raises:
        StepError: there is no such cluster or none with room, it was lost, or no video can be run.

    Source: https://docs.ray.io/en/latest/data/api/doc/ray.data.Dataset.map.html.
    """
    import ray
    import ray.data
    from ray.exceptions import RayError

    with _connected(options):
        gpus = _gpus(options)
        workers = min(options.workers or _default_workers(gpus, options.cpus), len(videos))
        try:
            rows = [{NAME: video.name, LOCATION: os.fsencode(video.location)} for video in videos]
            dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS))
            del rows
            results = dataset.map(
                RayWorker,
                fn_constructor_args=(output.folder.absolute(), uuid.uuid4().hex, detections, make, node_id),
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
                num_cpus=options.cpus,
                num_gpus=gpus,
            )
            for row in results.iter_rows():
                if row[PROBLEM] is not None:
                    raise StepError(row[PROBLEM])
                yield VideoRecord.model_validate_json(row[RECORD])
        except RayError as error:
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise StepError(f"Ray gave up: {said}; what was done is kept, run it again") from error


def node_id() -> str:
    """The Ray node that this process is on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


@contextlib.contextmanager
def _connected(options: RayOptions) -> Iterator[None]:
    import ray
    import ray.data

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        with _stderr_unheard():
            ray.init(
                address=options.address or "local",
                include_dashboard=None if options.address else False,
                num_cpus=None if options.address else _local_cpus(options),
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                configure_logging=True,
            )
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = f"the Ray cluster {shown_location(options.address)}" if options.address else "Ray on this machine"
        raise StepError(f"cannot reach {where}: {said}; see `ray status`") from error
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = False
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _stderr_unheard() -> Iterator[None]:
    """Keeps Ray's libraries in C++, which know no other place, from writing to standard error while they start."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _local_cpus(options: RayOptions) -> int | None:
    """Ray has to count enough CPUs for the workers that were asked for, however many there are."""
    if options.workers is None:
        return None
    return max(options.workers * options.cpus, available_cpus())


def _gpus(options: RayOptions) -> int:
    """GPUs of each actor."""
    import ray

    if options.gpus is not None:
        return options.gpus
    return 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0


def _default_workers(gpus: int, cpus: int) -> int:
    """As many actors as there is room for.

    Raises:
        StepError: there is none.
    """
    import ray

    wanted, each = ("GPU", gpus) if gpus else ("CPU", cpus)
    found = ray.cluster_resources().get(wanted, 0)
    if found < each:
        raise StepError(f"the Ray cluster has {found:g} {wanted}s, and a worker wants {each}; see `ray status`")
    return int(found / each)
