"""The base of all records, and the version of their form."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

SCHEMA_VERSION = 1
"""Version of the form of all records; tests/jobs/records has those of each release."""


class UnreadableRecordError(ValueError):
    """A record that does not fit its model. The text quotes none of its values, which may be prompts."""


class WireModel(BaseModel):
    """Base of all records; its fields may begin with ``model_``, which pydantic reserves by default.

    A field that another version of the record has is ignored: releases run side by side during an upgrade.
    """

    # A traceback names the wrong field without its value, which may be a prompt.
    model_config = ConfigDict(protected_namespaces=(), hide_input_in_errors=True)

    def to_record(self, exclude: set[str] | None = None) -> str:
        """The record as JSON without the fields of `exclude`, with the version of its form."""
        return f'{{"schema_version":{SCHEMA_VERSION},{self.model_dump_json(exclude=exclude)[1:]}'

    @classmethod
    def from_record(cls, record: bytes) -> Self:
        """Read a record of this or an earlier version; raises UnreadableRecordError."""
        try:
            return cls.model_validate_json(record)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise UnreadableRecordError(f"not a valid {cls.__name__}: {'; '.join(faults)}") from None
