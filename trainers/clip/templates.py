"""OpenAI's templates for the class names of ImageNet, as open_clip has them."""

from trainers.clip.library import open_clip

IMAGENET_TEMPLATES = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)  # 80: "a bad photo of a {}."
