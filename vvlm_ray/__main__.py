"""`python -m vvlm_ray` is `vvlm-ray`."""

from vvlm_ray.cli import main

main(prog_name="vvlm-ray")
