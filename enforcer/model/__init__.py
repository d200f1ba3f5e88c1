"""The vocabulary all layers speak: stages, modes and actions, sets of addresses, facts about a host, errors. Pure."""
