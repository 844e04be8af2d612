# Two commands a newcomer needs: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
# One process per core, and one thread in each; files that share something stay together (tests/conftest.py), in their order.
EVERYWHERE := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-engines test-all test-lowest lint clean
.DEFAULT_GOAL := demo

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --group dev
	-$(BIN)/python -m compileall -qq -j 0 .venv/lib  # tests start many processes; not every file of every package is Python 3
	touch $@

demo: .venv/.installed  ## the main job on synthetic patients: cohort, training, retrieval table
	mkdir -p $(DEMO) && cd $(DEMO) && $(CURDIR)/$(BIN)/symile-clin demo

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint, types, import contracts, tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(EVERYWHERE)

test-engines: .venv/.installed-dev  ## PySpark in local mode against DuckDB, row for row; needs a JDK 17
	$(BIN)/python -m pytest tests/cohort/test_spark.py tests/pipeline/test_engines.py

test-all: lint  ## also the slow ones: three-seed comparison of objectives, PySpark, more kills
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(EVERYWHERE)

test-lowest:  ## the lower bounds of pyproject.toml, installed and tested in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade uv
	.venv-lowest/bin/uv pip install --python .venv-lowest/bin/python --resolution lowest-direct --editable . --group dev
	.venv-lowest/bin/python -m pytest -m "not slow" -W default $(EVERYWHERE)

clean:
	rm -rf .venv .venv-lowest build dist
