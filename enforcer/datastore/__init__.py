"""Sources of the desired state: one module for each kind of store, with the protocol ``base.DataStore``."""
