"""Feeds: address lists of others, fetched on one host and stored as network sets for all. docs/feeds.md."""
