"""The service of the tests of jobs: uvicorn tests.support.apps.service_with_probes:app."""

from app import main
from tests.support.apps import job_probes

job_probes.load(main)
app = main.app
