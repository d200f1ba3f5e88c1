"""How the netfilter that Kubernetes uses on a host is known."""

from __future__ import annotations

# Chains that kubelet makes in the mangle table of the iptables it uses (pkg/kubelet/kubelet_network_linux.go).
KUBELET_CHAINS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
