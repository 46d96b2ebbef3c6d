"""The flow-control managers, where hyper has them."""

from hyperpool.window import BaseFlowControlManager, FlowControlManager

__all__ = ["BaseFlowControlManager", "FlowControlManager"]
