"""Process events, alerts, incidents and metrics for any OpenTelemetry Collector.

linnix run --handler otlp:http://127.0.0.1:4318
"""

from linnix_plugin_otlp.__about__ import __version__
from linnix_plugin_otlp.config import OtlpConfig
from linnix_plugin_otlp.handler import OtlpHandler

__all__ = ["OtlpConfig", "OtlpHandler", "__version__"]
