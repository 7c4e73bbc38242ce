"""Fixtures of the tests of hostile requests."""

from collections.abc import Iterator

import pytest

from tests.support.hostile import SECRET
from tests.support.servers import PASSWORD, Muster, Tokens


@pytest.fixture
def unharmed(muster: Muster, ada: Tokens) -> Iterator[None]:
    """Check after each test that nothing broke, no secret is in the log, and the module's `ada` is still served."""
    before = muster.log_file.stat().st_size
    yield
    log = muster.log_after(before)
    assert [word for word in ("ticket", "Traceback", SECRET, PASSWORD, ada.access) if word in log] == []
    assert muster.me(ada).status_code == 200
