"""Chat: one sequence of messages a room, and the hub that passes them on to subscribers. Start with hub.py."""
