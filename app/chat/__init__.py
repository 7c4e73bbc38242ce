"""Chat: each room's sequence of messages, and the hub that delivers them to subscribers. Start with hub.py."""
