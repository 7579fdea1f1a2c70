"""``GET /v1/members``."""

from __future__ import annotations

from collections.abc import Callable

from flask.testing import FlaskClient

from blueprints.v1.paging import cursor_after
from extensions import db
from models import User
from services import invitations
from services.keys import Minted
from tests.people import Person, bearer


def test_members_are_listed_in_pages_and_a_publishable_key_is_told_no_address(
    client: FlaskClient, alice: Person, bob: Person, charlie: Person, mint: Callable[..., Minted]
) -> None:
    headers = bearer(mint(scopes=["members:read"]).secret)
    whole = client.get("/v1/members", headers=headers).get_json()
    assert [(one["email"], one["role"]) for one in whole["data"]] == [(alice.email, "owner"), (bob.email, "viewer")]
    assert (whole["object"], whole["has_more"], whole["next_cursor"]) == ("list", False, None)
    assert set(whole["data"][0]) == {
        "id",
        "object",
        "status",
        "role",
        "email",
        "name",
        "joined_at",
        "last_seen_at",
    }
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


def invite(host: Person, email: str) -> str:
    inviter = db.session.get_one(User, host.user_id)
    return invitations.invite(host.workspace, email, "developer", inviter=inviter, actor=host.actor).id


def test_pending_invitations_are_listed_when_they_are_asked_for(
    client: FlaskClient, alice: Person, charlie: Person, mint: Callable[..., Minted]
) -> None:
    headers = bearer(mint(scopes=["members:read"]).secret)
    ids = [invite(alice, "first@else.example"), invite(alice, "second@else.example")]
    gone, foreign = invite(alice, "third@else.example"), invite(charlie, "fourth@else.example")
    invitations.withdraw(alice.workspace, gone, actor=alice.actor)
    whole = client.get("/v1/members?status=invited", headers=headers).get_json()
    assert [one["id"] for one in whole["data"]] == ids[::-1]
    assert whole["data"][1] == {
        "id": ids[0],
        "object": "invitation",
        "status": "invited",
        "role": "developer",
        "email": "first@else.example",
        "invited_by": alice.email,
        "invited_at": whole["data"][1]["invited_at"],
        "expires_at": whole["data"][1]["expires_at"],
    }
    first = client.get("/v1/members?status=invited&limit=1", headers=headers).get_json()
    second = client.get(f"/v1/members?status=invited&limit=1&cursor={first['next_cursor']}", headers=headers).get_json()
    assert first["data"] + second["data"] == whole["data"]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    # Members alone are told of as ever, and by "active".
    assert [one["status"] for one in client.get("/v1/members", headers=headers).get_json()["data"]] == ["active"]
    assert len(client.get("/v1/members?status=active", headers=headers).get_json()["data"]) == 1
    for place in (gone, foreign, alice.user_id):
        answer = client.get(f"/v1/members?status=invited&cursor={cursor_after(place)}", headers=headers)
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "cursor")
    answer = client.get("/v1/members?status=gone", headers=headers)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "status")
    public = bearer(mint(kind="publishable", scopes=["members:read"]).secret)
    told = client.get("/v1/members?status=invited", headers=public).get_json()["data"]
    assert [(one["id"], one["email"], one["invited_by"]) for one in told] == [(one, None, None) for one in ids[::-1]]
