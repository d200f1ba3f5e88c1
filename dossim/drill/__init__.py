"""A capture predicted, or drilled: lab, enforcer, replay, observation and verification in one go."""

from dossim.drill.judged import every as every
from dossim.drill.results import DrillResult as DrillResult
from dossim.drill.results import PredictResult as PredictResult
from dossim.drill.run import drill_capture as drill_capture
from dossim.drill.run import predict_capture as predict_capture
from dossim.drill.situation import Situation as Situation
from dossim.drill.situation import lab_facts as lab_facts
from dossim.drill.situation import plan_for as plan_for
from dossim.drill.situation import situation_for as situation_for
