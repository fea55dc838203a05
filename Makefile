# make demo       the shipped model looks at the pictures in examples/
# make test       linters, types, and the suite on TensorFlow, JAX and PyTorch
# make test-full  the same with the slow tests
# make lint       linters and types alone
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BACKENDS ?= tensorflow jax torch
DEMO_STAMP := $(VENV)/.installed-demo
TEST_STAMP := $(VENV)/.installed-test
TEST_EXTRAS := dev,export,heic,jax,notebooks,serve,tensorflow,torch,vlm

.DELETE_ON_ERROR:
.PHONY: demo test test-full lint format clean help

help:
	@sed -n 's/^# //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The small environment: one backend, no TensorFlow. An environment made for the tests will do as well.
$(DEMO_STAMP): pyproject.toml requirements/demo.txt | $(BIN)/python
	$(PIP) install --quiet --no-deps -r requirements/demo.txt
	$(PIP) install --quiet --no-deps -e .
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e ".[$(TEST_EXTRAS)]"
	@touch $@ $(DEMO_STAMP)

demo: $(DEMO_STAMP)
	@FASTVLM=$(BIN)/fastvlm sh examples/demo.sh

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python tools/run_suite.py --backends $(BACKENDS)

test-full: lint
	$(BIN)/python tools/run_suite.py --backends $(BACKENDS) --full

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
