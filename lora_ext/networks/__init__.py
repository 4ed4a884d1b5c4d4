"""The paper's network, on MONAI's own blocks; this folder needs nothing else of the package.

Read `lora` (section 2.1), `channels`, `encoder` (2.2), `fusion`, `decoder`, `channel_network` and
`unetr`, then `regimes` (2.3). `swin_unetr` is the same on another backbone.
"""

from lora_ext.networks.backbones import build_network, network_from_record
from lora_ext.networks.parameters import ParameterReport, parameter_report
from lora_ext.networks.swin_unetr import ChannelLoRASwinUNETR
from lora_ext.networks.unetr import ChannelLoRAUNETR

__all__ = [
    "ChannelLoRASwinUNETR",
    "ChannelLoRAUNETR",
    "ParameterReport",
    "build_network",
    "network_from_record",
    "parameter_report",
]
