"""Entity tags (RFC 9110 sections 8.8.3 and 13.1): an owner and a revision, compared as text."""

import re
from collections.abc import Sequence
from uuid import UUID

# Proxies that compress a response weaken its tag (nginx) or append the encoding (Apache, Caddy). Every version has a
# tag of its own, so a tag that was changed like this still names one version.
_LISTED = re.compile(r'(?:^|,)[ \t]*(?:W/)?"([\x21\x23-\x7e\x80-\xff]*?)(?:[-;](?:gzip|br|zstd))?"[ \t]*(?=,|$)')


def etag(owner_id: UUID, revision: int) -> str:
    """A strong tag, since every change to the tagged resource raises the revision."""
    return f'"{owner_id}.{revision}"'


def names(sent: Sequence[str] | None, current: str) -> bool:
    """Whether If-Match or If-None-Match was sent and names this tag (sections 13.1.1 and 13.1.2). Malformed tags name
    nothing."""
    field = ", ".join(sent or ()).strip()
    return field == "*" or current.strip('"') in _LISTED.findall(field)
