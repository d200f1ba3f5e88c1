"""What really happened: kernel events of every numbered packet, and what they prove.

``observer`` runs the BPF programs, ``journey`` is what they recorded, ``judge`` turns records into observations.
Nothing here knows the policy, the enforcer or the prediction.
"""

from dossim.observe.judge import Observations as Observations
from dossim.observe.judge import judge as judge
from dossim.observe.judge import open_packets as open_packets
from dossim.observe.observer import Observer as Observer
