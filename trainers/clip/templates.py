"""OpenAI's templates for the class names of ImageNet, as open_clip has them."""

from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

IMAGENET_TEMPLATES = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)  # 80, such as "a bad photo of a {}."
