"""A client of the server, sync and async: `with Client(url).episode() as episode: ...`.

It needs httpx and no other part of this project. It keeps an episode's token, posts its outcome
once, repeats requests that are safe to repeat, and observes a deadline.
"""

from serving.client.errors import ClientError, NotAnswered, Refused
from serving.client.http import AsyncClient, AsyncEpisode, Client, Episode

__all__ = [
    "AsyncClient",
    "AsyncEpisode",
    "Client",
    "ClientError",
    "Episode",
    "NotAnswered",
    "Refused",
]
