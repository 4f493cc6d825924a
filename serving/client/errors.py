"""What can go wrong for a client."""

from __future__ import annotations


class ClientError(Exception):
    """The server gave no action. Its text says what happened and what to do."""


class NotAnswered(ClientError):
    """No answer within the deadline, however often it was asked."""


class Refused(ClientError):
    """The server answered, and refused: `status` is the HTTP status, `field` what was wrong."""

    def __init__(self, status: int, message: str, field: str | None) -> None:
        super().__init__(f"the server refused ({status}): {message}")
        self.status, self.field = status, field
