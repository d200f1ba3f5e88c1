"""What this host denies, for who can deny it earlier: a router, another firewall. docs/feeds.md, "Upstream". Pure."""
