"""The paper's network, on MONAI's own blocks; this folder needs nothing else of the package.

Read `lora` (section 2.1), `encoder` (2.2), `fusion`, `decoder` and `unetr`, then `regimes` (2.3).
"""

from lora_ext.networks.parameters import ParameterReport, parameter_report
from lora_ext.networks.unetr import ChannelLoRAUNETR

__all__ = ["ChannelLoRAUNETR", "ParameterReport", "parameter_report"]
