PYTHON ?= python3
OLDEST_PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo-output
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-all lint types pytest docs coverage test-kernels test-oldest constraints dist clean

help:
	@echo 'make demo          set up, then run the demonstration (result in $(DEMO_OUT)/)'
	@echo 'make test          set up, then lint, types, tests, doctests and documentation'
	@echo 'make test-fast     lint, types and the tests that take parts of a second'
	@echo 'make test-all      make test with the slow tests'
	@echo 'make test-kernels  the numerical tests under every kernel of the linear algebra'
	@echo 'make test-oldest   the tests without torch under the oldest versions allowed'
	@echo 'make coverage      lines and branches that the tests run, by package'
	@echo 'make constraints   write the installed versions into constraints.txt'
	@echo 'make dist          build wheel and source archive; REPOSITORY=https://... for a release'
	@echo 'make clean         remove the environments and everything that was built'

demo: $(VENV)/demo.stamp
	$(BIN)/kktcert demo --out $(DEMO_OUT) --force

# The tests of one module share results, so that a worker takes them in a row.
WORKERS ?= auto
PYTEST = python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal
CHOSEN := not slow

# Threads of the linear algebra cost more than they gain on the small matrices of the tests.
test test-fast test-all pytest coverage test-oldest: export OMP_NUM_THREADS := 1
test: lint types pytest docs
test-all: CHOSEN := slow or not slow
test-all: test
test-fast: CHOSEN := not slow and not medium
test-fast: lint types pytest

WRITTEN := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md CITATION.cff docs/*.md docs/notebooks/*.ipynb

lint: $(VENV)/all.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell $(WRITTEN)

types: $(VENV)/all.stamp
	$(BIN)/mypy

pytest: $(VENV)/all.stamp
	$(BIN)/$(PYTEST) -m '$(CHOSEN)'

docs: $(VENV)/all.stamp
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

coverage: $(VENV)/all.stamp
	$(BIN)/$(PYTEST) -q -m '$(CHOSEN)' --cov --cov-report=
	$(BIN)/python -m tests.coverage_table

test-kernels: $(VENV)/all.stamp
	$(BIN)/python -m tests.kernels

test-oldest: $(VENV)-oldest/stamp
	$(VENV)-oldest/bin/$(PYTEST) -m '$(CHOSEN)' tests/identify tests/proofs_check identify proofs_check

# Local versions such as +cpu are left out: an index does not have them.
constraints: $(VENV)/all.stamp
	$(BIN)/python -m pip freeze --exclude-editable --exclude kktcert > $(VENV)/freeze.txt
	(sed -n 1p constraints.txt; sed -e 's/+[a-z0-9.]*$$//' $(VENV)/freeze.txt) > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

dist: $(VENV)/all.stamp
	rm -rf dist
	KKTCERT_REPOSITORY='$(REPOSITORY)' $(BIN)/python -m build --outdir dist .

$(VENV)-oldest/stamp: pyproject.toml constraints.txt tests/oldest.py
	$(OLDEST_PYTHON) -m venv --clear $(VENV)-oldest
	$(VENV)-oldest/bin/python tests/oldest.py > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint $(VENV)-oldest/constraints.txt \
		--editable '.[demo,proofs]' jsonschema pytest pytest-xdist
	touch $@

# The stamps date the last installation; a changed requirement makes both of them old.
# The demonstration needs no torch, so it does not wait for it.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[demo]'
	touch $@

$(VENV)/all.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[all,dev]'
	touch $(VENV)/demo.stamp $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist *.egg-info docs/_build $(DEMO_OUT) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
