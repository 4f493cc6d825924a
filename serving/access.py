"""The scope that each route needs. A route that is not listed here needs `admin`."""

from __future__ import annotations

from starlette.routing import compile_path

#: The need of a route. OPEN: never a token. READ: no token, or, if `SRGHN_AUTH` is `everything`,
#: any scope that may read. INFER and OUTCOME: no token, or their scope where it is required.
#: SESSION: the route checks for a session itself and does nothing without one. REVIEW and ADMIN:
#: always their scope.
OPEN, READ, INFER, OUTCOME, REVIEW, ADMIN = "open", "read", "infer", "outcome", "review", "admin"
SESSION = "session"

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"
ACCESS: dict[tuple[str, str], str] = {
    ("GET", "/health/live"): OPEN,
    ("GET", "/health/ready"): OPEN,
    ("GET", "/v2/health/live"): OPEN,
    ("GET", "/v2/health/ready"): OPEN,
    ("GET", "/metrics"): READ,
    ("GET", "/openapi.json"): READ,
    ("GET", "/"): READ,
    ("GET", "/docs"): READ,
    ("GET", "/policies/{policy}"): READ,
    ("GET", "/v1/policies"): READ,
    ("GET", "/v1/policies/{policy}"): READ,
    ("POST", "/v2/repository/index"): READ,
    ("GET", "/history"): READ,
    ("GET", "/versions"): READ,
    ("GET", "/versions/{version}"): READ,
    ("GET", "/compare"): READ,
    ("GET", "/episode"): REVIEW,
    ("GET", "/sign-in"): SESSION,
    ("POST", "/sign-in"): SESSION,
    ("POST", "/sign-out"): SESSION,
    ("GET", "/decide/{step}"): SESSION,
    ("POST", "/decide/{step}"): SESSION,
    ("GET", "/v2"): READ,
    ("GET", _MODEL): READ,
    ("GET", _VERSION): READ,
    ("GET", f"{_MODEL}/ready"): READ,
    ("GET", f"{_VERSION}/ready"): READ,
    ("GET", "/v1/champion"): READ,
    ("GET", "/v1/versions"): READ,
    ("GET", "/v1/versions/{version}"): READ,
    ("GET", "/v1/versions/{version}/report"): READ,
    ("GET", "/v1/versions/{version}/report.json"): READ,
    ("GET", "/v1/versions/{version}/data_docs.html"): READ,
    ("GET", "/v1/episodes/{episode_id}"): REVIEW,
    ("POST", "/v1/act"): INFER,
    ("POST", "/v1/act/batch"): INFER,
    ("POST", f"{_MODEL}/infer"): INFER,
    ("POST", f"{_VERSION}/infer"): INFER,
    ("POST", "/v1/episodes/{episode_id}/outcome"): OUTCOME,
    ("POST", "/v1/versions/{version}/approve"): REVIEW,
    ("POST", "/v1/versions/{version}/reject"): REVIEW,
    ("POST", "/v1/versions/{version}/stale"): REVIEW,
    ("POST", "/v1/versions/{version}/revoke"): ADMIN,
    ("POST", "/v1/versions/{version}/shadow"): ADMIN,
    ("POST", "/v1/versions/{version}/shadow/stop"): ADMIN,
    ("POST", "/v1/holdback/stop"): ADMIN,
    ("POST", "/v1/canary/abort"): ADMIN,
    ("POST", "/v1/canary/weight"): ADMIN,
    ("POST", "/v1/canary/status"): ADMIN,
    ("POST", "/v1/mode"): ADMIN,
    ("POST", "/v1/rollback"): ADMIN,
    ("POST", "/v1/sync"): ADMIN,
}
#: Routes about all policies at once, which no token of one policy opens.
SHARED = frozenset(
    {
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/v1/policies"),
        ("GET", "/v2"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v1/sync"),
    }
)
#: Pages that say themselves which policy they are about, once they know: see `require_policy`.
LOOKED_UP = frozenset(
    {
        ("GET", "/policies/{policy}"),
        ("GET", "/v1/policies/{policy}"),
        ("GET", "/history"),
        ("GET", "/versions"),
        ("GET", "/versions/{version}"),
        ("GET", "/compare"),
        ("GET", "/episode"),
    }
)
_PATTERNS = [(method, compile_path(path)[0], path) for method, path in ACCESS]


def needed_by(method: str, path: str) -> str | None:
    """The need of a request's route; None if the route is not listed."""
    found = template_of(method, path)
    return None if found is None else ACCESS["GET" if method == "HEAD" else method, found]


def about(method: str, path: str, policy: str) -> tuple[bool, str | None]:
    """Whether a request's route itself finds its policy; and otherwise the policy, None for all.

    `policy` is the one that the path names, or the default one. A route that is not listed is
    about all policies.
    """
    key = "GET" if method == "HEAD" else method, template_of(method, path)
    if key in LOOKED_UP:
        return True, None
    return False, None if key in SHARED or key[1] is None else policy


def template_of(method: str, path: str) -> str | None:
    """The pattern of a request's route, such as `/v1/versions/{version}`; None if not listed."""
    wanted = "GET" if method == "HEAD" else method
    for of, pattern, template in _PATTERNS:
        if of == wanted and pattern.match(path):
            return template
    return None
