"""The errors of a client."""

from __future__ import annotations


class ClientError(Exception):
    """The server gave no action. The text says what happened and what to do."""


class NotAnswered(ClientError):
    """No answer within the deadline, in spite of repeated requests."""


class Refused(ClientError):
    """The server refused the request: `status` is the HTTP status, `field` the wrong field.

    Status 200 to 299: what came is no answer of this server; a login page of a network, for
    example.
    """

    def __init__(self, status: int, message: str, field: str | None) -> None:
        did = "answered" if 200 <= status < 300 else "refused"
        super().__init__(f"the server {did} ({status}): {message}")
        self.status, self.field = status, field
        self._given = status, message, field

    def __reduce__(self) -> tuple[object, ...]:
        """Copied from what made it, so that it may cross processes."""
        return type(self), self._given
