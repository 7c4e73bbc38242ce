"""E-mail: what each message says, and the SMTP server or outbox that takes it. Start with messages.py."""
