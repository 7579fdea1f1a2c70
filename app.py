"""The application factory: settings in, extensions bound, blueprints and errors registered. No logic."""

from __future__ import annotations

import gc

# What is loaded here stays, so nobody needs to look for garbage in it, now or later. That is a quarter of what a
# command takes, and of the time until a portal answers.
gc.disable()

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from dotenv import dotenv_values
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

import commands
import config
import models  # noqa: F401 - makes the tables known
from blueprints import (
    account,
    assets,
    audit,
    brain,
    errors,
    found,
    health,
    home,
    hooks,
    invitations,
    keys,
    operator,
    overview,
    plan,
    playground,
    profile,
    providers,
    scopes,
    team,
    usage,
    v1,
    webhooks,
    workspace,
)
from blueprints.mail_texts import mail_renderer
from blueprints.portal import Portal
from blueprints.template_tools import init_templates
from extensions import csrf, db, limiter, login_manager
from models.quick import Quick
from services import guarded_storage, logs, parts, schema
from services.digest import Digester
from services.form_seal import FormSeal
from services.gateway.breaker import Breakers
from services.gateway.providers import provider_table
from services.gateway.upstream import Upstream
from services.key_format import KeyFormat
from services.mail_transport import Folder, Post, Relay
from services.master_keys import MasterKeyFile
from services.outbound import Outbound
from services.rate_limits import RateLimits, storage_from_uri
from services.readiness import Readiness
from services.relying_party import relying_party
from services.sessions import LONGEST
from services.turns import SEATS, Turns
from services.vault import Vault

if TYPE_CHECKING:
    from services.oidc import OidcProvider

gc.freeze()
gc.enable()

# How long a page waits for one of its process's connections to the database.
_POOL_SECONDS = 5


def create_app(settings: config.Settings | None = None) -> Flask:
    """Make the portal from its settings, by default those of the environment and of ``.env``.

    Raises config.ConfigurationError when a setting is wrong.
    """
    # What the portal writes is for its owner only.
    os.umask(0o077)
    settings = settings or load_settings()
    logs.configure(settings.log_format, settings.log_level)
    for sentence in settings.unknown:
        structlog.get_logger("settings").warning(sentence)

    app = Portal(__name__, instance_path=str(settings.instance_path), static_folder=None)
    app.config.from_mapping(flask_settings(settings))
    # An address with two slashes is no other spelling of one; a redirect would go where the Host header says.
    app.url_map.merge_slashes = False
    trust_proxies(app, settings.trusted_proxies)
    hooks.init_app(app)
    errors.init_app(app)
    made = make_parts(settings, app)
    parts.install(app.extensions, made)
    with app.for_pages_only():
        bind_extensions(app, made)
    init_templates(app)
    assets.init_app(app)
    for blueprint in (
        health,
        home,
        account,
        overview,
        playground,
        brain,
        usage,
        workspace,
        team,
        invitations,
        profile,
        keys,
        providers,
        scopes,
        plan,
        operator,
        webhooks,
        audit,
        found,
        v1,
    ):
        app.register_blueprint(blueprint.bp)
    commands.init_app(app, settings)
    return app


def load_settings() -> config.Settings:
    """Read the settings; the environment wins over ``.env``, which ``FLASK_SKIP_DOTENV=1`` leaves out as in Flask.

    Raises config.ConfigurationError when a setting is wrong, or the file cannot be read.
    """
    if os.environ.get("FLASK_SKIP_DOTENV") == "1":
        return config.load(os.environ)
    file = config.ROOT / ".env"
    try:
        from_file = {name: value for name, value in dotenv_values(file).items() if value is not None}
    except OSError as error:
        raise config.ConfigurationError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        # Its own words would show a byte of what may be a key.
        raise config.ConfigurationError(f"{file} is not text in UTF-8.") from None
    return config.load({**from_file, **os.environ})


def flask_settings(settings: config.Settings) -> dict[str, object]:
    """Return what Flask and its extensions need to know."""
    secure = settings.public_url.startswith("https://")
    return {
        "SECRET_KEY": settings.secret_key.reveal(),
        "SESSION_COOKIE_NAME": "__Host-portal" if secure else "portal",
        "SESSION_COOKIE_SECURE": secure,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        # For a cookie that outlives the browser; the session's row ends sooner or at the same time.
        "PERMANENT_SESSION_LIFETIME": LONGEST,
        "MAX_CONTENT_LENGTH": settings.max_body_mb * 1_000_000,
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        # An exception's text must not hold what was to be stored.
        "SQLALCHEMY_ENGINE_OPTIONS": {"hide_parameters": True, "pool_timeout": _POOL_SECONDS},
        "RATELIMIT_STORAGE_URI": f"{guarded_storage.SCHEME}://",
        "RATELIMIT_STRATEGY": "moving-window",
        "WTF_CSRF_TIME_LIMIT": None,
        # The token is enough, and no page of ours sends a referrer.
        "WTF_CSRF_SSL_STRICT": False,
        "BRAND": settings.brand,
        "KEY_PREFIX": settings.key_prefix,
        "PUBLIC_URL": settings.public_url,
        "SALES_EMAIL": settings.sales_email,
    }


def trust_proxies(app: Flask, number: int) -> None:
    """Believe what so many proxies in front say in the X-Forwarded headers."""
    if number:
        trusting = ProxyFix(app.wsgi_app, x_for=number, x_proto=number, x_host=number)
        app.wsgi_app = trusting  # type: ignore[method-assign]


def bind_extensions(app: Flask, made: parts.Parts) -> None:
    db.init_app(app)
    app.extensions["migrate"] = schema.Migrations(db, str(config.ROOT / "migrations"))
    # Its context processor would ask the database for the user again, also while an error page says that it is away.
    login_manager.init_app(app, add_context_processor=False)
    csrf.init_app(app)
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {"limits": made.limits}
    limiter.init_app(app)


def make_post(settings: config.Settings, app: Flask) -> Post:
    """Build what mail is written and sent with."""
    if settings.smtp_url is not None:
        return Post(mail_renderer(app), Relay(settings.smtp_url, settings.mail_from))
    return Post(mail_renderer(app), Folder(settings.instance_path / "mail", settings.mail_from))


def make_identity_provider(settings: config.Settings) -> OidcProvider | None:
    """Build what speaks to the operator's identity provider, if one is set."""
    if settings.oidc_issuer is None or settings.oidc_client_id is None or settings.oidc_client_secret is None:
        return None
    # Most portals have none, and what reads its tokens is much to load.
    from services.oidc import OidcProvider, OidcSettings

    return OidcProvider(
        OidcSettings(
            issuer=settings.oidc_issuer,
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret,
            name=settings.oidc_name,
            redirect_uri=settings.public_url + "/sign-in/elsewhere/back",
            domains=settings.oidc_domains or (),
            trusted=settings.oidc_trusted,
            second_factor=settings.oidc_second_factor,
        )
    )


def make_parts(settings: config.Settings, app: Flask) -> parts.Parts:
    """Build the tools of the services."""
    quick = Quick(settings.database_url)
    return parts.Parts(
        quick=quick,
        turns=Turns(SEATS, quick.wait_seconds),
        key_format=KeyFormat(settings.key_prefix),
        key_digests=Digester(settings.secret_key, "api key"),
        fingerprint_digests=Digester(settings.secret_key, "ended api key"),
        session_digests=Digester(settings.secret_key, "login session"),
        setup_digests=Digester(settings.secret_key, "set-up link"),
        attempt_digests=Digester(settings.secret_key, "sign-in attempt"),
        recovery_digests=Digester(settings.secret_key, "recovery code"),
        form_seal=FormSeal(settings.secret_key),
        relying_party=relying_party(settings.public_url, settings.brand),
        brand=settings.brand,
        link_digests=Digester(settings.secret_key, "mailed link"),
        second_factor_required=settings.second_factor == "required",
        sign_up_open=settings.sign_up == "open",
        own_words=(settings.brand, settings.key_prefix, urlsplit(settings.public_url).hostname or ""),
        oidc=make_identity_provider(settings),
        invitation_digests=Digester(settings.secret_key, "invitation"),
        audit_digests=Digester(settings.secret_key, "audit log"),
        vault=Vault(
            settings.master_keys, MasterKeyFile(settings.master_key_file) if settings.master_key_file else None
        ),
        plans=settings.plans,
        limits=RateLimits(
            storage_from_uri(settings.ratelimit_storage_uri), fallback=settings.ratelimit_fallback == "memory"
        ),
        auth_failures_per_minute=settings.auth_failures_per_minute,
        providers=provider_table(
            openai_base_url=settings.openai_base_url,
            openrouter_base_url=settings.openrouter_base_url,
            declared=settings.declared_providers or (),
        ),
        upstream=Upstream(
            connect_seconds=settings.provider_connect_seconds, read_seconds=settings.provider_read_seconds
        ),
        brain=settings.brain,
        breakers=Breakers(
            failures=settings.breaker_failures,
            pause_seconds=settings.breaker_seconds,
            trial_seconds=settings.breaker_seconds,
        ),
        provider_retries=settings.provider_retries,
        provider_total_seconds=settings.provider_total_seconds,
        post=make_post(settings, app),
        sales_email=settings.sales_email,
        outbound=Outbound(settings.webhook_networks),
        readiness=Readiness(app),
        metrics_token=settings.metrics_token,
    )
