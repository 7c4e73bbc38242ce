"""What /metrics says: the series that a scrape can contain, and the value of one."""

from app.core.metrics import DatabaseMetrics, registry
from tests.support.servers import Muster

SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
FAMILIES = [*registry.collect(), *DatabaseMetrics({}).collect()]
SERIES = {f"{family.name}{suffix}" for family in FAMILIES for suffix in SUFFIXES[family.type]}


def slot_waits(muster: Muster) -> float:
    """How many database sessions of an instance have waited for a slot."""
    return float(muster.client.get("/metrics").text.partition("\nmuster_slot_waits_total ")[2].split()[0])
