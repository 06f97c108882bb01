# make demo: the whole journey on synthetic spines; make test: every check; make bench: the long measurements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test bench clean

$(INSTALLED): pyproject.toml Testing/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint Testing/constraints.txt --editable '.[demo,test]'
	touch $@

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

clean:
	rm -rf build
