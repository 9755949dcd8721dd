# `make run` and `make test` are all that a fresh machine needs; the rest is for those who work on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := mosquitto portaudio19-dev libasound2-plugins systemd

.PHONY: setup run test check bench evaluate clean apt weights

setup: $(VENV)/run.stamp

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,train]'
	touch $@

weights:
	$(BIN)/emotion-models fetch

run: setup weights
	$(BIN)/emotion-edge demo $(if $(DURATION),--seconds $(DURATION))

# Debian packages that some tests need: installed where that is allowed, named where it is not.
apt:
	@missing=""; for package in $(APT_PACKAGES); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  elif sudo -n true 2>/dev/null; then sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends $$missing; \
	  else echo "some tests will be skipped; to run them: sudo apt install$$missing"; fi; fi

# PyAudio has no Linux wheel: without the headers the microphone tests skip, the rest runs.
$(VENV)/microphone.stamp: $(VENV)/test.stamp
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check 'PyAudio>=0.2.13,<0.3'
	touch $@

test: apt $(VENV)/test.stamp $(VENV)/microphone.stamp weights
	$(BIN)/python -m pytest

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup weights
	$(BIN)/emotion-edge bench

# Every model on the data sets below DATA; what is not there is said. The page lands in runs/.
evaluate: setup weights
	@test -n "$(DATA)" || { echo "evaluate: DATA is not set; make evaluate DATA=directory-of-the-data-sets"; exit 2; }
	$(BIN)/emotion-models evaluate --data "$(DATA)" --html runs/evaluation.html

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
