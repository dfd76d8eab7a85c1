# Everything on a machine with Python >= 3.11 and make: the first target to need it builds the virtual environment.
PYTHON ?= python3
VENV ?= .venv
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python -m
# A process for each core.
PYTEST := $(RUN) pytest --numprocesses auto --dist loadfile

.PHONY: demo test lint learning preflight bench peers results clean

# Train PPO on CartPole over 8 seeds in one program; score, speed and a learning curve.
demo: $(INSTALLED)
	$(RUN) experiments train ppo --preset ppo-cartpole --seeds 8

# The quick tests.
test: $(INSTALLED)
	$(PYTEST) --fast-compile

# Further forms of what the quick tests cover; then, compiled as users have it, training and resumption bit for bit.
learning: $(INSTALLED)
	$(PYTEST) --fast-compile -m slow
	$(PYTEST) -m learning
	$(PYTEST) tests/test_resume.py tests/test_sweeping.py -k resumed

# Every learner, small, compiled for TPUs that are not there; libtpu, their compiler, is 700 MB.
preflight: $(INSTALLED)
	$(RUN) pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test,tpu]'
	JAX_PLATFORMS=cpu $(RUN) pytest tests/test_preflight.py -m 'slow or not slow' --numprocesses auto

# Speed against ceilings, other libraries and size; an hour and a quarter on two quiet cores.
bench: $(INSTALLED) peers
	$(RUN) experiments bench --out experiments/results/bench.json

# Every preset over its seeds; hours. What was stopped goes on.
results: $(INSTALLED)
	$(RUN) experiments results --out experiments/results/table.md

# Other libraries, in an environment of their own: what they need contradicts what this one needs.
peers: .venv-peers/.installed

.venv-peers/.installed: experiments/benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check --quiet --requirement experiments/benchmarks/peers.txt
	@touch $@

lint: $(INSTALLED)
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

clean:
	rm -rf $(VENV) .venv-peers build dist .pytest_cache .ruff_cache .mypy_cache

# Once, and again whenever what is to be installed changes.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.12, say')"
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@
