"""What the kernel did: its events for every numbered packet, and what they prove.

``observer`` runs the BPF programs, ``journey`` is their record, ``judgement`` turns records into observations. Nothing
here knows the policy, the enforcer or the prediction.
"""

from dossim.observe.journey import arrivals_ns as arrivals_ns
from dossim.observe.judgement import Observations as Observations
from dossim.observe.judgement import judge as judge
from dossim.observe.judgement import open_packets as open_packets
from dossim.observe.observer import Observer as Observer
