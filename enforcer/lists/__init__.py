"""Address lists as they are published and as tools print them: recognised and parsed. Pure."""
