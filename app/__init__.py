"""Muster: accounts, scoped tokens, rotating refresh tokens, and what a mobile app keeps behind them."""
