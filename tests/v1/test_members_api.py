"""``GET /v1/members``."""

from __future__ import annotations

from collections.abc import Callable

from flask.testing import FlaskClient

from services.keys import Minted
from tests.people import Person, bearer


def test_members_are_listed_in_pages_and_a_publishable_key_is_told_no_address(
    client: FlaskClient, alice: Person, bob: Person, charlie: Person, mint: Callable[..., Minted]
) -> None:
    headers = bearer(mint(scopes=["members:read"]).secret)
    whole = client.get("/v1/members", headers=headers).get_json()
    assert [(one["email"], one["role"]) for one in whole["data"]] == [(alice.email, "owner"), (bob.email, "viewer")]
    assert (whole["object"], whole["has_more"], whole["next_cursor"]) == ("list", False, None)
    assert set(whole["data"][0]) == {"id", "object", "role", "email", "name", "joined_at", "last_seen_at"}
    first = client.get("/v1/members?limit=1", headers=headers).get_json()
    second = client.get(f"/v1/members?limit=1&cursor={first['next_cursor']}", headers=headers).get_json()
    assert first["data"] + second["data"] == whole["data"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    for query in ("limit=0", "limit=101", "limit=x", "limit=", "cursor=", "cursor=!", "cursor=dXNyX25vYm9keQ", "q=x"):
        answer = client.get(f"/v1/members?{query}", headers=headers)
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, query.partition("=")[0]), query
    public = bearer(mint(kind="publishable", scopes=["members:read"]).secret)
    text = client.get("/v1/members", headers=public).get_data(as_text=True)
    assert bob.user_id in text
    assert bob.email not in text
    refused = client.get("/v1/members", headers=bearer(mint(scopes=["usage:read"]).secret))
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "insufficient_scope")
