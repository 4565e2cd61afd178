"""What a run will do, found before it is started: rows, labels, lengths, steps, memory, time, shared rows, pooling."""

from nlp_mtl.dryrun.making import dry_run
from nlp_mtl.dryrun.result import DryRun

__all__ = ["DryRun", "dry_run"]
