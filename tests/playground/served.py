"""The models that the playground shows, and the keys of its guarded server."""

from jobs.settings import BUNDLED_MODEL

STUDENT, TEACHER = BUNDLED_MODEL, BUNDLED_MODEL.parent / "emoji-teacher"
KEY, OTHER_KEY = "a-key-of-the-test", "another-key-of-the-test"
