"""Where the desired state comes from: one module for each kind of store, all behind ``base.DataStore``."""
