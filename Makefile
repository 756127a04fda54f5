.PHONY: run test lint format setup

# The window on the bundled clip; without a display, the annotated clip in out/.
run:
	@sh scripts/setup.sh run
	@sh scripts/run.sh

test:
	@sh scripts/setup.sh dev
	QT_QPA_PLATFORM=offscreen .venv/bin/python -m pytest $(ARGS)

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
