"""`PYTHONPATH=benchmarks python -m gpu_check`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Stages use what the tests have: the stand-in for the GPU, the kernels compiled for the host.
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
    from gpu_check.cli import main

    main()
