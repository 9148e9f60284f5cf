import pytest

from tda_jax.errors import InputError
from tda_jax.evaluation.controls_plan import refuse
from tests.evaluation import few_parameters


def test_a_plan_that_fits_is_let_through():
    refuse(few_parameters.plan(), few_parameters.network())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 0}, "queries = 0; give 1"),
        ({"queries": 7}, "queries = 7; give 6 at most"),
        ({"studied_queries": 3}, "studied_queries = 3; give 2 at most"),
        ({"batch": 7}, "batch = 7; give 6 at most"),
        ({"replicates": 1}, "replicates = 1; give 2"),
        ({"held_out": 0}, "held_out = 0; give 1"),
        ({"seeds": ()}, r"seeds = \(\)"),
        ({"seeds": (0, 0)}, "each once"),
        ({"seeds": (-1,)}, "seed = -1"),
        ({"updates": (4, 2)}, "rising"),
        ({"rates": (0.0, 0.1)}, "above 0"),
        ({"groups": ("self_attention",)}, "not in this network"),
        ({"groups": ("all",)}, "not in groups"),
        ({"damping": 0.0}, "damping = 0.0"),
        ({"caliper": float("inf")}, "caliper = inf"),
        ({"rise": 0.2}, "leave out rise = 0.2"),
        ({"strata": 15}, "strata = 15"),
        ({"own_replicates": 3}, "own_replicates = 3"),
        ({"draw_counts": (10, 30)}, "draw_counts"),
        ({"draw_counts": (5, 20)}, "draw_counts"),
        ({"query_draw_counts": (4, 12)}, "double each time"),
        ({"query_draw_counts": (3, 6)}, "start even"),
        ({"query_draws": 15}, "query_draws = 15"),
    ],
)
def test_a_plan_that_does_not_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        refuse(few_parameters.plan(**changes), few_parameters.network())
