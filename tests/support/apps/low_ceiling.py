"""The service with a low ceiling of wrong passwords, each of which takes a hash: uvicorn
tests.support.apps.low_ceiling:app."""

from limits import RateLimitItemPerHour

from app import main
from app.accounts import limits

CEILING = 20

limits.ACCOUNT_CEILING = RateLimitItemPerHour(CEILING)
app = main.app
