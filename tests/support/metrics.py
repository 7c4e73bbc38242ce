"""A scrape of /metrics, and the series that one can contain."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.core.metrics import DatabaseMetrics, registry
from tests.support.servers import NO_TLS, Muster

SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
FAMILIES = [*registry.collect(), *DatabaseMetrics({}).collect()]
SERIES = {f"{family.name}{suffix}" for family in FAMILIES for suffix in SUFFIXES[family.type]}
Labels = frozenset[tuple[str, str]]


def scrape(muster: Muster, **headers: str) -> dict[str, dict[Labels, float]]:
    """{name: {labels: number}}."""
    answer = httpx.get(f"{muster.url}/metrics", headers=headers, timeout=30, verify=NO_TLS)
    assert answer.status_code == 200, answer.text
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def number(found: dict[str, dict[Labels, float]], name: str, **labels: str) -> float:
    return found.get(name, {}).get(frozenset(labels.items()), 0)
