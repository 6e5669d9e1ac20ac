"""Reads the output of the program that `app.py` launches. The toolchain looks for the class `Run` in a module of this name."""

from wit_world.exports import agent
from wit_world.imports.types import (
    Conclusion,
    Ending_Failed,
    Ending_Stopped,
    Ending_Succeeded,
    Fact_Text,
    Failure,
    FailureClass,
)


class Run(agent.Run):
    """Takes every line as text for the log and the exit code for the result."""

    def __init__(self, start):
        pass

    def observe(self, lines):
        return [Fact_Text(line.text) for line in lines]

    def conclude(self, exit):
        if exit.code == 0:
            ending = Ending_Succeeded()
        elif exit.stop_requested:
            ending = Ending_Stopped()
        else:
            message = f"exit code {exit.code}: {exit.stderr_tail.strip()}"
            ending = Ending_Failed(Failure(FailureClass.AGENT, message, ""))
        return Conclusion(ending, None, None, [])
