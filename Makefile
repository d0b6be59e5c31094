PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo-output
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help demo test clean

help:
	@echo 'make demo   set up, then run the demonstration (result in $(DEMO_OUT)/)'
	@echo 'make test   set up, then lint, types, tests, doctests and documentation'
	@echo 'make clean  remove the environment and everything that was built'

demo: $(VENV)/demo.stamp
	$(BIN)/kktcert demo --out $(DEMO_OUT) --force

# Threads of the linear algebra cost more than they gain on the small matrices of the tests.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/all.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

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
	rm -rf $(VENV) build dist *.egg-info docs/_build $(DEMO_OUT) .mypy_cache .pytest_cache .ruff_cache .hypothesis
