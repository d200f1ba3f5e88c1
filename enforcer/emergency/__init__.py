"""Emergency acts: small network sets beside a deny list, which end by themselves. docs/emergency.md."""
