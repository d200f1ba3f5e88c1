"""etcd as a datastore: Calico's keys and JSON, read with a small client over gRPC.

grpcio and protobuf are the extra ``dossim[etcd]``; only ``client`` imports them.
"""
