"""How the best configuration moves with the number of finetuning examples: e_k of each factor, with its band.

python analysis/elasticity.py RECORDS [--form add-interact]
"""

import argparse

import vvlm_ray as vr

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("records", help="a study's folder, or a table with one row per run")
parser.add_argument("--form", default="auto")
options = parser.parse_args()

answer = vr.analyse(options.records, form=options.form, elasticity=True)
moved = answer.elasticity
print(answer.verdict.sentence)
for factor, mean in moved.mean.items():
    print(f"{factor:>20}  {mean:+.2f}  [{moved.low[factor]:+.2f}, {moved.high[factor]:+.2f}]")
print(f"{moved.share_extrapolated:.0%} of these optima lie beyond what was swept")
