"""Tensor operations of the method: functions without parameters."""
