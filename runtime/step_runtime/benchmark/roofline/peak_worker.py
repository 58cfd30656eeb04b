"""A process that measures what one library's matrix product, or copying, reaches; one line of JSON on standard output.

    python -m step_runtime.benchmark.roofline.peak_worker numpy fp32 --threads 2 --seconds 1

A process of its own, because some libraries take their threads from the environment when they are loaded.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from step_runtime.benchmark.roofline.peak_answer import PeakAnswer
from step_runtime.benchmark.roofline.product_graph import product_graph

Call = Callable[[], object]

PRECISIONS = {
    "numpy": ("fp32",),
    "torch": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
"""Precisions of each library's matrix product on a CPU."""
CUDA_PRECISIONS = ("fp32", "tf32", "bf16", "fp16")

_SIZES = (512, 1024, 2048, 4096)
_CUDA_SIZES = (4096, 8192)
_COPY_BYTES = 256 * 2**20  # beyond any cache
_MOST_S = 1.0  # a product that takes longer is not tried in a larger size


def main() -> None:
    """Prints the result, or the reason why there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=[*PRECISIONS, "copy", "cuda"])
    parser.add_argument("precision", choices=[*CUDA_PRECISIONS, "bytes"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    library, precision, threads = arguments.library, arguments.precision, arguments.threads
    try:
        if library == "copy":
            answer = _copy_rate(threads, arguments.seconds)
        elif library == "cuda":
            answer = _cuda_rate(precision, arguments.seconds)
        else:
            make = {"numpy": _numpy, "torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino}[library]
            answer = _best_rate(lambda size: make(size, precision, threads), _SIZES, arguments.seconds)
    except (ImportError, RuntimeError) as error:  # torch and OpenVINO raise RuntimeError for what they cannot do
        answer = PeakAnswer(problem=(str(error).strip().splitlines() or [type(error).__name__])[0])
    answers.write(answer.model_dump_json() + "\n")


def _best_rate(make: Callable[[int], Call], sizes: Sequence[int], seconds: float) -> PeakAnswer:
    """The best multiply-adds/s of square products of all sizes, each tried for its share of the time."""
    best = PeakAnswer()
    for size in sizes:
        call = make(size)
        call()
        took_s = _best_time_s(call, seconds / len(sizes))
        rate = size**3 / took_s
        if rate > (best.rate or 0):
            best = PeakAnswer(rate=rate, size=size)
        if 8 * took_s > _MOST_S:
            break
    return best


def _best_time_s(call: Call, seconds: float) -> float:
    """The shortest of at least three calls."""
    best_s, calls, ends_s = float("inf"), 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < ends_s:
        began_s = time.perf_counter()
        call()
        best_s = min(best_s, time.perf_counter() - began_s)
        calls += 1
    return best_s


def _copy_rate(threads: int, seconds: float) -> PeakAnswer:
    """Bytes read and written a second; each thread copies a part of its own."""
    source, target = (np.ones(_COPY_BYTES // 8) for _ in range(2))
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def call() -> object:
            return list(pool.map(lambda part: np.copyto(*part), parts))  # NumPy copies without the interpreter's lock

        call()
        return PeakAnswer(rate=2 * _COPY_BYTES / _best_time_s(call, seconds), size=_COPY_BYTES)


def _operands(size: int) -> tuple[Any, Any]:
    state = np.random.RandomState(0)
    first, second = (state.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    return first, second


def _numpy(size: int, _precision: str, _threads: int) -> Call:
    """Its BLAS has its threads from the environment."""
    first, second = _operands(size)
    result = np.empty_like(first)
    return lambda: np.matmul(first, second, out=result)


def _torch(size: int, precision: str, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    first, second = (torch.from_numpy(array).to(dtype) for array in _operands(size))
    result = torch.empty_like(first)
    return lambda: torch.mm(first, second, out=result)


def _onnxruntime(size: int, _precision: str, threads: int) -> Call:
    import onnxruntime as ort

    model, inputs = product_graph(size)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def _openvino(size: int, precision: str, threads: int) -> Call:
    import openvino
    from openvino import opset13

    first, second = _operands(size)
    taken = opset13.parameter([size, size], np.float32)
    model = openvino.Model([opset13.matmul(taken, opset13.constant(second), False, False)], [taken])
    hint = "f32" if precision == "fp32" else precision
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([first], share_inputs=True, share_outputs=True)


def _cuda_rate(precision: str, seconds: float) -> PeakAnswer:
    """By PyTorch on the first GPU; the host waits for each call."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA GPU")
    name = torch.cuda.get_device_name(0)
    if precision == "bytes":
        source = torch.ones(_COPY_BYTES, dtype=torch.float32, device="cuda")
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            torch.cuda.synchronize()

        copy()
        return PeakAnswer(rate=2 * source.nbytes / _best_time_s(copy, seconds), size=source.nbytes, device=name)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)

    def make(size: int) -> Call:
        first, second = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        result = torch.empty_like(first)

        def call() -> None:
            torch.mm(first, second, out=result)
            torch.cuda.synchronize()

        return call

    return _best_rate(make, _CUDA_SIZES, seconds).model_copy(update={"device": name})


if __name__ == "__main__":
    main()
