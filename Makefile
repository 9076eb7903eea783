# make demo   everything, end to end, on clips that it makes itself (folder demo/)
# make test   ruff, mypy and the tests, two files of them at once (WORKERS=0: one after another)
# make docs   the documentation as a site (folder site/)
# make setup  .venv with avel and its tools in it; the three above call it

PYTHON ?= python3
DEMO ?= demo
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test docs clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "avel needs Python 3.11 or later; give another with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/avel demo $(DEMO)

test: setup
	$(BIN)/ruff check avel examples tests benchmarks docs
	$(BIN)/ruff format --check avel examples tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo site .pytest_cache .ruff_cache .mypy_cache
