"""The Celery worker with the probes of job_probes.py: celery --app tests.support.apps.worker_with_probes."""

from app import worker
from tests.support.apps import job_probes

job_probes.load(worker)
celery = worker.celery
