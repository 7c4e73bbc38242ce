"""Entity tags (RFC 9110 sections 8.8.3 and 13.1): an owner and a revision, compared as text."""

import re
from collections.abc import Sequence
from uuid import UUID

_LISTED = re.compile(r'(?:^|,)[ \t]*(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')


def etag(owner_id: UUID, revision: int) -> str:
    """A strong tag: every change of what it describes raises the revision."""
    return f'"{owner_id}.{revision}"'


def if_match(sent: Sequence[str] | None, current: str) -> bool:
    """Whether If-Match holds, by strong comparison (section 13.1.1). Malformed tags match nothing."""
    field = "*" if sent is None else ", ".join(sent).strip()
    return field == "*" or ("", current) in _LISTED.findall(field)


def if_none_match(sent: Sequence[str] | None, current: str) -> bool:
    """Whether If-None-Match holds, by weak comparison (section 13.1.2)."""
    field = "" if sent is None else ", ".join(sent).strip()
    return field != "*" and current not in [tag for _, tag in _LISTED.findall(field)]
