"""Entity tags (RFC 9110 sections 8.8.3 and 13.1): made of an owner and a revision, compared as text."""

import re
from collections.abc import Sequence
from uuid import UUID

_LISTED = re.compile(r'(?:^|,)[ \t]*(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')


def etag(owner_id: UUID, revision: int) -> str:
    """Strong: the revision is raised with every change of what it stands for."""
    return f'"{owner_id}.{revision}"'


def if_match(sent: Sequence[str], current: str) -> bool:
    """Section 13.1.1: whether one of the tags is `current`, by strong comparison. What is malformed matches nothing."""
    field = ", ".join(sent)
    return field.strip() == "*" or ("", current) in _LISTED.findall(field)


def if_none_match(sent: Sequence[str], current: str) -> bool:
    """Section 13.1.2: whether none of the tags is `current`, by weak comparison."""
    field = ", ".join(sent)
    return field.strip() != "*" and current not in [tag for _, tag in _LISTED.findall(field)]
