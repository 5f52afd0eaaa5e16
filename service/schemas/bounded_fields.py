"""Objects in requests, which have no more fields than any call needs."""

from typing import Any

from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

MOST_FIELDS = 64


class BoundedFields(BaseModel):
    """An object of at most MOST_FIELDS fields: each unknown one would be an error, and thousands of them take a time in
    which no other call is answered."""

    @model_validator(mode="before")
    @classmethod
    def _has_few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise PydanticCustomError("too_many_fields", "at most {max_length} fields", {"max_length": MOST_FIELDS})
        return given
