"""Serves checkpoints and LoRA adapters with vLLM, here or where it runs already."""

from linnix_plugin_vllm.__about__ import __version__
from linnix_plugin_vllm.deployer import VllmDeployer, VllmDeployerConfig

__all__ = ["VllmDeployer", "VllmDeployerConfig", "__version__"]
