"""The service with a low limit of chat subscribers: uvicorn tests.support.apps.few_subscribers:app."""

from app import main
from app.chat import hub

hub.MAX_PER_USER, hub.MAX_PER_NETWORK, hub.MAX_SUBSCRIBERS = 2, 3, 4
app = main.app
