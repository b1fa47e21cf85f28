# make demo and make test each build .venv from the pinned constraints when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test test-all test-gpu check format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/motionmae demo

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(BIN)/python -m pytest -m 'not gpu'

# On a machine with a GPU and its own PyTorch: PYTHON_GPU names the interpreter that has it.
PYTHON_GPU ?= python3
test-gpu:
	$(PYTHON_GPU) -m pytest -m gpu

check: setup
	$(BIN)/ruff format --check motionmae tests
	$(BIN)/ruff check motionmae tests
	$(BIN)/basedpyright
	$(BIN)/python -m pytest

format: setup
	$(BIN)/ruff format motionmae tests
	$(BIN)/ruff check --fix motionmae tests

clean:
	rm -rf .venv build dist runs
