"""Sources of the desired state: one module for each kind of store, behind ``base.DataStore``."""
