"""Two network namespaces and a veth pair: the victim is the Host a prediction is for, the peer sends."""

from dossim.lab.lab import Lab as Lab
