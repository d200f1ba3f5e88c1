"""The Kubernetes API as a datastore: Calico's custom resources, read with a thin client on the standard library."""
