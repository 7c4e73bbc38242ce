"""The series that a scrape of /metrics can contain."""

from app.core.metrics import DatabaseMetrics, registry

SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
FAMILIES = [*registry.collect(), *DatabaseMetrics({}).collect()]
SERIES = {f"{family.name}{suffix}" for family in FAMILIES for suffix in SUFFIXES[family.type]}
