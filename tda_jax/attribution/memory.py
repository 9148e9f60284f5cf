"""How much memory a pass will take, from its compiled program and before it runs."""

from typing import Any, NamedTuple

from tda_jax import devices


class Need(NamedTuple):
    """Bytes on each device.

    Attributes:
        arguments: parameters, directions, sums and one batch of rows.
        results: of one batch, without those that take the place of an argument.
        scratch: what the program needs while it runs.
    """

    arguments: int
    results: int
    scratch: int

    @property
    def peak(self) -> int:
        """All of them together: what a device must have."""
        return self.arguments + self.results + self.scratch


def need(mapped: devices.RowMap, *arguments: Any) -> Need:
    """The memory of a compiled step; compiling it takes as long as its first run would.

    Args:
        mapped: from a pass, such as `make_sweep(...).mapped`.
        arguments: shapes or arrays that the step takes, as `devices.step_arguments` gives them.
    """
    stats = mapped.step.lower(*arguments).compile().memory_analysis()
    return Need(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes - stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
    )
