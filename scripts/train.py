"""Fine-tune as a run file says, with as many processes as torchrun starts.

torchrun --nproc_per_node 2 scripts/train.py scripts/runs/glue_ner.yaml --data-root DIR training.num_train_epochs=1
accelerate launch scripts/train.py scripts/runs/glue_ner.yaml
"""

import sys

from nlp_mtl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
