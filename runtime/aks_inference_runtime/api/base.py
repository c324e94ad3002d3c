"""The bases of wire objects: frozen, camelCase in JSON, unknown fields refused, or left out."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A wire object: snake_case in Python, camelCase in JSON."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="strings",
        allow_inf_nan=False,
    )

    def to_wire(self) -> dict[str, object]:
        """The object as JSON types, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OpenWire(Wire):
    """What other releases may say more of: their fields that are unknown here are left out."""

    model_config = ConfigDict(extra="ignore")
