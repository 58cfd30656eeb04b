"""Devices, precision and processes of a run: Lightning Fabric, launched.

Source: https://lightning.ai/docs/fabric/stable/api/fabric_args.html; torchrun's environment variables.
"""

import os
import warnings
from typing import Literal

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from step.errors import ArgumentError
from step.training.config import Precision

_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def open_fabric(accelerator: str, devices: int | str, precision: Precision) -> Fabric:
    """Starts what there is to start; under torchrun, joins its processes on all machines.

    Args:
        accelerator: auto, cpu or cuda.
        devices: how many on this machine, or auto; under torchrun its own number counts.
        precision: of the networks.

    Raises:
        ArgumentError: no such device, fewer than asked for, or a precision that it does not have.
    """
    asked = f"`accelerator` {accelerator} `devices` {devices}, precision {precision}"
    here = os.environ.get("LOCAL_WORLD_SIZE")  # processes on this machine, where torchrun started them
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You passed .*AMP with fp16")  # which is refused below
            if here is None:
                fabric = Fabric(accelerator=accelerator, devices=devices, precision=_PRECISION[precision])
            else:
                fabric = Fabric(
                    accelerator=accelerator,
                    devices=here,
                    num_nodes=int(os.environ["WORLD_SIZE"]) // int(here),
                    strategy="ddp",
                    precision=_PRECISION[precision],
                )
        fabric.launch()
    except (MisconfigurationException, ImportError, ValueError, RuntimeError, TypeError) as error:  # Fabric's, torch's
        raise ArgumentError(f"{asked}: {' '.join(str(error).split())}") from error
    if precision == "fp16" and fabric.device.type == "cpu":
        raise ArgumentError(f"{asked}: a CPU trains in fp32 or bf16; set precision to bf16")
    return fabric
