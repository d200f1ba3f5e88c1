"""What the netfilter backends (iptables, nftables, netdev ingress) share. Pure."""
