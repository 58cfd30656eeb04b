"""`python -m gpu_check`."""

from gpu_check.cli import main

if __name__ == "__main__":
    main()
