"""From an InterfacePlan to the bytes of the XDP program's maps. Pure."""
