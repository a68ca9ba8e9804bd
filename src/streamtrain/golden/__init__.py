"""What training computes, bit for bit: the definition that the gateware is compared with."""

from streamtrain.golden.model import Golden

__all__ = ["Golden"]
