"""Trains every bundle for three steps, one after the other, in the processes of one torchrun.

Arguments: the folder of the bundles, that of the data sets, one for output, then free ports. Each
process leaves ``rank<N>.json``: of every bundle how its network was wrapped, and what it then held.
"""

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path

import ignite.distributed as idist
from monai.bundle import ConfigWorkflow
from torch.nn.parallel import DistributedDataParallel

from lora_ext.bundles.generator import PRETRAINING, all_facts

SIZES = {
    "roi_size": [32, 32, 16], "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2,
    "num_workers": 0, "epochs": 1, "val_interval": 1, "crops_per_case": 1, "num_folds": 3,
}  # fmt: skip
OWN = {
    "segmentation": {"feature_size": 4, "sw_overlap": 0.0, "batch_size": 1, "pretrained": "none"},
    "pretraining": {"decoder_hidden_size": 12, "decoder_mlp_dim": 16, "decoder_num_layers": 1,
                    "decoder_num_heads": 2, "batch_size": 4},
}  # fmt: skip


def train(configs, output, **settings):
    """Run a bundle; returns what is to be compared."""
    places = {"ckpt_dir": str(output / "models"), "output_dir": str(output / "eval")}
    workflow = ConfigWorkflow(
        [str(path) for path in configs], logging_file=False, **SIZES, **places, **settings
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    network, trainer = (workflow.parser.get_parsed_content(i) for i in ("network", "train#trainer"))
    seen = {
        "wrapped": isinstance(network, DistributedDataParallel),
        "find_unused_parameters": network.find_unused_parameters,
        "optimizer": type(trainer.optimizer).__name__,
        "steps": trainer.state.iteration,
        "rank": idist.get_rank(),
        "weights": checksum(network),
    }
    workflow.finalize()
    return seen


def checksum(network):
    values = (p.detach().numpy().tobytes() for p in network.parameters())
    return hashlib.sha256(b"".join(values)).hexdigest()


def main():
    bundles, tasks, output = map(Path, sys.argv[1:4])
    ports = sys.argv[4:]
    seen = {}
    for name, facts in all_facts().items():
        for more in ([], ["multi_gpu_sharded"]) if name == PRETRAINING else ([],):
            run = "+".join([name, *more])
            # Every run gets a meeting place of its own; torchrun's serves only one.
            os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": ports.pop()}
            files = ["train", "multi_gpu_train", *more]
            seen[run] = train(
                [bundles / name / "configs" / f"{file}.json" for file in files],
                output / run,
                dataset_dir=str(tasks / ("brats" if name == PRETRAINING else facts["dataset"])),
                **OWN[facts["kind"]],
            )
    (output / f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="parsing config_file")
    warnings.filterwarnings("ignore", message=".torch.jit", category=DeprecationWarning)
    main()
