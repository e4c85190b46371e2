"""What attacks on recognizers work on and hand back, under the name that probes use."""

from audit.examples import Attacked, Examples, Goal

__all__ = ["Attacked", "Examples", "Goal"]
