"""How to detect which netfilter backend Kubernetes uses on a host."""

from __future__ import annotations

# kubelet creates these chains in the mangle table of its iptables variant (pkg/kubelet/kubelet_network_linux.go).
KUBELET_CHAINS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
