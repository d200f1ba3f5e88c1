"""Frames onto the wire, each carrying its number."""

from dossim.replay.scapy_sender import MOST_PACKETS as MOST_PACKETS
from dossim.replay.scapy_sender import ScapySender as ScapySender
from dossim.replay.scapy_sender import new_tag as new_tag
