"""Score a run folder on a split.

python scripts/evaluate.py runs/quickstart --split test
"""

import sys

from nlp_mtl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
