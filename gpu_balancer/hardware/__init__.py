"""What is published about GPUs: which coding engines a model has, and how fast one engine is.

Tables of facts, shared by both daemons. They are the answer of last resort: settings and real probes win over them.
"""

from gpu_balancer.hardware.engine_speeds import engine_frames_per_second
from gpu_balancer.hardware.models import ModelRow, model_row, row_named

__all__ = ["ModelRow", "engine_frames_per_second", "model_row", "row_named"]
