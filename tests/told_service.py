"""The service of the tests of jobs: uvicorn tests.told_service:app."""

from app import main
from tests import told_handlers

told_handlers.load(main)
app = main.app
