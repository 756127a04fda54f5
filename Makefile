.PHONY: run test test-slow lint format setup

# The window on the bundled clip; without a display, the annotated clip in out/.
run:
	@sh scripts/setup.sh run
	@sh scripts/run.sh

test:
	@sh scripts/setup.sh dev
	QT_QPA_PLATFORM=offscreen .venv/bin/python -m pytest -m "not slow" $(ARGS)

lint:
	@sh scripts/setup.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format:
	@sh scripts/setup.sh dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

setup:
	@sh scripts/setup.sh dev

# What takes minutes: learning by heart, long simulations, the larger exports.
test-slow:
	@sh scripts/setup.sh dev
	QT_QPA_PLATFORM=offscreen .venv/bin/python -m pytest -m slow $(ARGS)
