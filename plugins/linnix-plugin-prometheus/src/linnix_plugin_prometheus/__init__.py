"""Metrics of a running agent and of the processes it follows, for Prometheus.

linnix run --handler prometheus:127.0.0.1:9464
"""

from linnix_plugin_prometheus.__about__ import __version__
from linnix_plugin_prometheus.config import PrometheusConfig
from linnix_plugin_prometheus.handler import PrometheusHandler

__all__ = ["PrometheusConfig", "PrometheusHandler", "__version__"]
