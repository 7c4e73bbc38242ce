"""The worker of the tests of jobs: celery --app tests.told_worker."""

from app import worker
from tests import told_handlers

told_handlers.load(worker)
celery = worker.celery
