# Every target builds .venv from requirements.lock when it is missing or out of date; another PYTHON gets one of its own.
PYTHON ?= python3
# The wheel of PyTorch differs by platform and index, so that it has a version but no hash; pyproject.toml has it too.
TORCH := torch==2.13.0
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV ?= $(BIN)/uv
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: setup bench demo test test-all test-lowest test-gpu check docs format lock clean

setup: $(STAMP)

# The lock is whole, so nothing is resolved; PyTorch finds what it needs there, save NVIDIA's libraries of its CUDA build.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
	touch $(STAMP)

demo: setup
	$(BIN)/motionmae demo

# The tables of docs/performance.md that are made on a CPU: one thread, so that processor time is what is measured.
bench: setup
	for ratio in 1.0 0.5 0.25; do for attention in self cross; do \
		$(BIN)/motionmae bench pretrain small --optim.batch 2 --loss.motion 0 --mask.decode-ratio $$ratio \
			--model.decoder.attention $$attention --no-alternatives --turns 3 --run.threads 1 --data.workers 0; \
	done; done
	$(BIN)/motionmae bench sizes --run.threads 1
	$(BIN)/motionmae bench run tiny --run.threads 1
	$(BIN)/python benchmarks/loop.py tiny --turns 20 --run.threads 1

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(BIN)/python -m pytest -m 'not gpu'

# The suite with the lowest version of each package that pyproject.toml allows, PyTorch too (as its index has it).
test-lowest: setup
	$(PYTHON) -m venv --clear .venv-lowest
	$(UV) pip install --no-config --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest

# On a machine with a GPU and its own PyTorch: PYTHON_GPU names the interpreter that has it.
PYTHON_GPU ?= python3
test-gpu:
	$(PYTHON_GPU) -m pytest -m gpu

check: setup
	$(BIN)/ruff format --check motionmae tests benchmarks
	$(BIN)/ruff check motionmae tests benchmarks
	$(BIN)/basedpyright
	$(BIN)/python -m pytest

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

format: setup
	$(BIN)/ruff format motionmae tests benchmarks
	$(BIN)/ruff check --fix motionmae tests benchmarks

# Writes requirements.lock anew after a change of pyproject.toml; pins that still fit stay (UPGRADE=--upgrade renews all).
lock:
	$(UV) pip compile --quiet --universal --python-version 3.10 --extra dev --generate-hashes --no-annotate \
	  --no-emit-package torch --custom-compile-command 'make lock' $(UPGRADE) pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .venv-* build dist site runs
