"""E-mail: composing each message, and sending it to an SMTP server or the outbox. Start with messages.py."""
