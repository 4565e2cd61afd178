# Both commands do all their set-up themselves: .venv, pinned versions, model and data.
.PHONY: quickstart test verify install clean

quickstart:        ## train six real tasks on a small encoder, about 4 minutes of training, no Hub
	@sh scripts/setup.sh quickstart

test:              ## linters, types, layers and tests, in less than 15 minutes
	@sh scripts/setup.sh test

verify:            ## recorded figures on real data (hours; can be resumed), into scripts/benchmarks/RESULTS.md
	@sh scripts/setup.sh verify

install:           ## .venv only
	@sh scripts/setup.sh install

clean:             ## remove .venv and caches of this folder
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
