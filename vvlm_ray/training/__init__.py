"""The finetuning loop of one trial, and the base training of the synthetic backbones."""
