"""Pressure, CPU and memory of cgroups: one small round of reads every few seconds."""

from linnix_plugin_psi.__about__ import __version__
from linnix_plugin_psi.collector import PsiCollector, PsiConfig

__all__ = ["PsiCollector", "PsiConfig", "__version__"]
