"""The service with room for few who follow the chat: uvicorn tests.few_readers:app."""

from app import chat, main

chat.MOST_OF_ONE, chat.MOST = 2, 3
app = main.app
