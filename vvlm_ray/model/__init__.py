"""Vision tower, projector, pooling and language model as one PreTrainedModel."""
