# Each target makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Of the GPU machine; and what `python -m gpu_check` is told besides.
PYTHON_VERSION ?= 3.12
GPU_KIT_ARGS ?=
GPU_CHECK_ARGS ?=

.PHONY: demo test test-fast check triton-server gpu-kit gpu-check clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py --out build/demo

# One thread each: two processes with two would wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

# For everyday work: what neither exports nor trains.
test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not gpu and not slow and not long' --durations=10

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# NVIDIA's Triton server on a CPU, for the tests of the service; its Python backend reads NumPy 1 alone.
triton-server: $(BIN)/python
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $(VENV)/tritonserver nvidia-pytriton==0.7.0 numpy==1.26.4

gpu-kit: $(STAMP)
	PYTHONPATH=benchmarks $(BIN)/python -m gpu_check.kit --python $(PYTHON_VERSION) $(GPU_KIT_ARGS)

# Where somebody put the kit but nothing is installed, there is no network to install from.
ifeq ($(wildcard $(BIN)/python),)
ifneq ($(wildcard build/gpu-kit/kit.json),)
GPU_CHECK := $(PYTHON) benchmarks/gpu_check/bare.py
endif
endif

gpu-check: $(if $(GPU_CHECK),,$(STAMP))
	$(or $(GPU_CHECK),PYTHONPATH=benchmarks:tests $(BIN)/python -m gpu_check) --out build/gpu-check $(GPU_CHECK_ARGS)

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all]'
	touch $@
