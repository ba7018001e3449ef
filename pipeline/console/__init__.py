"""What a job reports to people and machines, and how it ends."""

from pipeline.console.exits import ExitCode, UsageError, exit_code, usage
from pipeline.console.printing import say

__all__ = ["ExitCode", "UsageError", "exit_code", "say", "usage"]
