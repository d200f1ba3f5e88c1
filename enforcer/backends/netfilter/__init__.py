"""What the backends of netfilter share: iptables, nftables and netdev ingress. Pure."""
