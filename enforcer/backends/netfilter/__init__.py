"""What the backends in netfilter share: iptables, nftables and netdev ingress."""
