# make demo    from a fresh clone to a trained, evaluated network on drawn sample faces
# make sample  only the sample data: sample/data
# make test    linters, type checker and the whole test suite
# make bench   the speed of the generator and of the augmentation (FER2013_DIR names the folder of the two CSVs)
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

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
	$(BIN)/python -m pytest

bench: .venv/installed-dev
	@test -n "$(FER2013_DIR)" || { echo "make bench FER2013_DIR=folder of fer2013.csv and fer2013new.csv"; exit 1; }
	$(BIN)/python -m benchmarks.generator $(FER2013_DIR)
	$(BIN)/python -m benchmarks.augment

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fer_jax needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv sample experiments/sample
