"""From a design to Verilog, evidence and a report: ``python -m streamtrain.build``."""

from streamtrain.build.errors import BuildError
from streamtrain.build.flow import BuildResult, build
from streamtrain.build.synth import Resources, synthesise

__all__ = ["BuildError", "BuildResult", "Resources", "build", "synthesise"]
