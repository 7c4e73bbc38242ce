"""The service with the probes of job_probes.py: uvicorn tests.support.apps.service_with_probes:app."""

from app import main
from tests.support.apps import job_probes

job_probes.load(main)
app = main.app
