"""CUDA's calls, counted: what was made and given back, how often a host waited."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from step_runtime.backends.cuda import Cuda

_PAIRS = (
    ("allocate", "free"),
    ("allocate_pinned", "free_pinned"),
    ("create_stream", "destroy_stream"),
    ("end_capture", "destroy_graph"),
)


class CountedCuda:
    """Has the methods of the `Cuda` that it hands every call to.

    Args:
        cuda: what does the work.

    Attributes:
        calls: how often each method was called.
        done: how often it did not fail.
    """

    def __init__(self, cuda: Any) -> None:
        self.calls: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._cuda = cuda

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._cuda, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            answer = method(*arguments, **named)
            self.done[name] += 1
            return answer

        return call

    @property
    def host_waits(self) -> int:
        """Counts how often the host waited for the GPU."""
        return self.calls["synchronize_event"] + self.calls["synchronize_stream"]

    def never_called(self) -> list[str]:
        """Lists the methods of `Cuda` that nobody has called."""
        return sorted({name for name in vars(Cuda) if not name.startswith("_")} - set(self.done))

    def not_given_back(self) -> list[str]:
        """Says in words what was made more often than it was given back, or less."""
        made = {first: (self.done[first], self.done[last]) for first, last in _PAIRS}
        events = self.done["create_event"] + self.done["create_timed_event"]
        made["create_event"] = (events, self.done["destroy_event"])
        return [f"{name}: {count} made, {back} given back" for name, (count, back) in made.items() if count != back]
