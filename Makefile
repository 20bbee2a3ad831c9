# `make demo` runs the main job on the bundled model, `make test` the whole suite.
# Each does all of its own set-up, and is quick the second time.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test check setup clean

demo: $(VENV)/.installed
	$(RUN) agnostic_capture.py --auto-select "attn:0;mlp:0;other:"
	$(RUN) bertviz_head_model_view.py
	@echo "Open the two pages in a browser; they need no network."

test: $(VENV)/.installed-dev
	@sh tests/helpers/chromium.sh
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) docs/write_options.py --check

setup: $(VENV)/.installed

clean:
	rm -rf $(VENV) .cache agnostic_activations.json bertviz/*.html

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	@echo "Installing the requirements into $(VENV): a few minutes the first time."
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.installed
