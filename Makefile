# A fresh machine needs only `make run` and `make test`; the other targets are for development.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Coral boards run tflite-runtime, which needs its own Python and NumPy.
TFLITE := .venv-tflite
# Home Assistant checks our discovery payload, on the Python version that it needs.
HA := .venv-ha
# Without bytecode files every process compiles its libraries again: TensorFlow takes 14 s in place of 5.
unexport PYTHONDONTWRITEBYTECODE
APT_PACKAGES := mosquitto portaudio19-dev libasound2-plugins systemd gcc libc6-dev chromium libvulkan1 \
  pulseaudio pulseaudio-utils gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good

.PHONY: setup run test test-install test-tflite check chaos fuzz soak bench evaluate clean apt weights

setup: $(VENV)/run.stamp

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[dev,train]'
	touch $@

weights:
	$(BIN)/emotion-models fetch

run: setup weights
	$(BIN)/emotion-edge demo $(if $(DURATION),--seconds $(DURATION))

# Debian packages that some tests need: installed if we may (root or sudo), otherwise printed.
apt:
	@missing=""; for package in $(APT_PACKAGES); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  elif sudo -n true 2>/dev/null; then sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends $$missing; \
	  else echo "some tests will be skipped; to run them: sudo apt install$$missing"; fi; fi

# PyAudio has no Linux wheel: without the headers only the microphone tests skip.
$(VENV)/microphone.stamp: $(VENV)/test.stamp
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check 'PyAudio>=0.2.13,<0.3'
	touch $@

# tflite-runtime 2.14 has no wheel for Python above 3.11; ai-edge-litert is removed because it takes precedence.
$(TFLITE)/test.stamp: pyproject.toml
	$(PYTHON) -m venv $(TFLITE)
	$(TFLITE)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[tflite-runtime]' 'pytest>=8.2,<10' 'pytest-timeout>=2.3,<3' 'pytest-xdist>=3.6,<4'
	$(TFLITE)/bin/python -m pip uninstall --quiet --yes ai-edge-litert
	touch $@

$(HA)/test.stamp:
	@for python in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13); do \
	  if $$python -c '' 2>/dev/null; then $$python -m venv $(HA) && \
	    $(HA)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check 'homeassistant==2025.1.4' 'paho-mqtt<2' && \
	    touch $@; exit; fi; done; \
	echo "the schemas of Home Assistant are not tested: they need Python 3.13"

# Three workers for two cores, since a third of the time is waiting. One thread each: PyTorch, TensorFlow and OpenBLAS
# spin while their threads wait for a core, which doubles the processor time of the training tests.
test: apt $(VENV)/test.stamp $(VENV)/microphone.stamp weights test-tflite $(HA)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

# Models and delegates on tflite-runtime.
test-tflite:
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  $(MAKE) --no-print-directory $(TFLITE)/test.stamp && $(TFLITE)/bin/python -m pytest -n 2 --dist loadgroup tests/edge/inference/test_backends.py tests/edge/inference/test_fallback.py tests/edge/inference/test_delegates.py; \
	else echo "tflite-runtime is not tested: it needs Python 3.11"; fi

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Faults of daemon, broker, network, cluster, fleet, disk and page under load (15 minutes); `make test` runs a short form.
# Prints one table and writes runs/chaos.json.
chaos: apt $(VENV)/test.stamp
	CHAOS=full CHAOS_JSON=runs/chaos.json $(BIN)/python -m pytest tests/chaos --quiet --timeout=900

# Random configurations, cards, media files, MQTT messages and packets, and HTTP requests, for MINUTES. Prints a table and
# writes runs/fuzz.json. Inputs with findings are saved below runs/fuzz: make fuzz REPEAT=FILE. SEED chooses other inputs.
fuzz: apt $(VENV)/test.stamp weights
	$(BIN)/python -m tests.fuzz.run --minutes $(or $(MINUTES),5) --seed $(or $(SEED),0) $(if $(REPEAT),--repeat "$(REPEAT)")

# The daemon at twenty times its speed among failures, for MINUTES; prints what grows and what is lost.
soak: apt $(VENV)/test.stamp weights
	$(BIN)/python -m tests.system.soak --minutes $(or $(MINUTES),30)

# systemd/install.sh and the unit, in a Debian that is built below runs/ and booted; needs root.
# ARCH=arm64 uses the aarch64 wheels under qemu; SUITE=trixie selects another release.
test-install:
	@$(MAKE) --no-print-directory apt APT_PACKAGES="debootstrap systemd-container qemu-user-static"
	$(PYTHON) tests/install/run.py $(if $(ARCH),--arch $(ARCH)) $(if $(SUITE),--suite $(SUITE))

# Speed of the device's stages and backends, speed ratios of the converter's forms, limits of the delivery.
bench: apt $(VENV)/test.stamp weights
	$(BIN)/emotion-edge bench
	$(BIN)/emotion-convert bench
	$(BIN)/python -m pytest -m bench --capture=no tests/edge

# Every model on the data sets below DATA, missing ones are listed; writes runs/evaluation.html.
evaluate: setup weights
	@test -n "$(DATA)" || { echo "evaluate: DATA is not set; type make evaluate DATA=directory-of-the-data-sets"; exit 2; }
	$(BIN)/emotion-models evaluate --data "$(DATA)" --html runs/evaluation.html

clean:
	rm -rf $(VENV) $(TFLITE) $(HA) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/install
