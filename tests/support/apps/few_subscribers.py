"""The service with a low limit of chat subscribers: uvicorn tests.support.apps.few_subscribers:app."""

from app import main
from app.chat import hub

hub.MOST_OF_ONE, hub.MOST = 2, 3
app = main.app
