"""What tensorrt-rtx is told before it makes an execution context."""

from dataclasses import dataclass


@dataclass
class FakeRuntimeCache:
    """Holds compiled kernels.

    Attributes:
        loaded: every content that was put into a cache of this library.
    """

    loaded: list[bytes]

    def deserialize(self, content: bytes) -> None:
        """Takes what an earlier run kept."""
        self.loaded.append(content)

    def serialize(self) -> bytes:
        """Returns what a later run is to have."""
        return b"compiled kernels"


@dataclass
class FakeRuntimeConfig:
    """Is an `IRuntimeConfig`; `loaded_caches` is that of `FakeTensorRT`."""

    loaded_caches: list[bytes]
    cuda_graph_strategy: str = "disabled"
    dynamic_shapes_kernel_specialization_strategy: str = "lazy"
    strategy: str = "static"
    cache: FakeRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        """See `IRuntimeConfig`."""
        self.strategy = strategy

    def create_runtime_cache(self) -> FakeRuntimeCache:
        """See `IRuntimeConfig`."""
        return FakeRuntimeCache(self.loaded_caches)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> None:
        """See `IRuntimeConfig`."""
        self.cache = cache
