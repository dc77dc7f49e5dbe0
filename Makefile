# make demo    from a fresh clone to a trained, evaluated network on drawn sample faces
# make sample  only the sample data: sample/data
# make test    linters, type checker and the whole test suite
# make bench   speed beside PyTorch's on this machine, everything that needs no GPU (some 15 minutes on two cores)
PYTHON ?= python3
BIN := .venv/bin
# pip would compile to bytecode on one core
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib || true

.PHONY: demo sample test bench clean

demo: sample
	$(BIN)/python -m fer_jax.main --config configs/sample.py
	$(BIN)/python -m fer_jax.evaluate --run experiments/sample --split valid
	@echo
	@echo "checkpoints:      experiments/sample/checkpoints (latest and best)"
	@echo "report:           experiments/sample/report/report.html"
	@echo "TensorBoard logs: experiments/sample; look at them with: $(BIN)/tensorboard --logdir experiments"

# Both commands are quick where their output is there already.
sample: .venv/installed
	$(BIN)/python -m fer_generator.synthetic -o sample
	$(BIN)/python fer_generator/generate_training_data.py -d sample/data -fer sample/fer2013.csv -ferplus sample/fer2013new.csv

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

# FER2013_DIR, where it is set, names the folder of the two CSVs for the generator.
bench: sample .venv-bench/installed
	$(BIN)/python benchmarks/compare.py --csvs $(or $(FER2013_DIR),sample)

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fer_jax needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt
	@$(COMPILE)
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@$(COMPILE)
	@touch $@

# PyTorch, for the benchmarks alone
.venv-bench/installed: requirements-bench.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

clean:
	rm -rf .venv .venv-bench sample experiments/sample
