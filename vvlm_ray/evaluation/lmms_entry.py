"""What lmms-eval's registry of models reads at its start (entry-point group `lmms_eval.models`): a name, no model."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest("vvlm_ray", simple_class_path="vvlm_ray.evaluation.lmms_model.VvlmRay")
