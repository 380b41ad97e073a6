"""The maths: forms, cost, fitting, bagging, frontier, elasticity. numpy, scipy and numba only."""
