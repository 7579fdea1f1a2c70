"""ARKAbrain: which connected model suits a request, by rules that anybody can read (``brain.toml``).

The task is the one whose signals weigh most in the user's last message; what was said before and the system message
count less. A request as long as a book is ``long_context`` whatever it says. Then the first model of the task's list
is taken that is connected and can do what the request needs. Nothing here is random, and the clock is not asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidRequest
from services.gateway import prompts
from services.gateway.brain_rules import EMBEDDINGS, Model, Rules
from services.gateway.brain_words import plain
from services.gateway.prompts import Prompt
from services.parts import parts

ALIASES = ("arkabrain", "auto")
# What is wanted stands at the beginning of a long message or at its end; what lies between is what it is about.
_FIRST_CHARACTERS = 8000
_LAST_CHARACTERS = 4000
_CHARACTERS_PER_TOKEN = 4
_LONGEST_REASON = 200
_TOLD_SIGNALS = 2
_REQUEST = "request"
_NOT_CONNECTED = "not connected"
_TOO_SHORT = "reads less than this"
_OUTPUT_FIELDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Choice:
    """The model to call, as a caller would name it, the provider to call it at, and why: one short ASCII sentence.

    ``others`` are the pairs of model and provider that come next, should this one not answer.
    """

    model: str
    provider: str
    task: str
    reason: str
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that speaks for a task: the words found in one part of the request, and what they weigh there."""

    task: str
    name: str
    words: tuple[str, ...]
    where: str
    weight: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a request is about, and every finding, the heaviest first."""

    task: str
    findings: list[Finding]
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of the task's list. ``why_not`` is None for one that could be taken."""

    model: Model
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice with all that led to it."""

    choice: Choice
    judgement: Judgement
    candidates: list[Candidate]


def is_alias(model: str) -> bool:
    """Tell whether a model's name asks for ARKAbrain; capitals make no difference."""
    return model.lower() in ALIASES


def known_providers() -> frozenset[str]:
    """Return the providers that the rules name: what counts as connected for a test key."""
    return parts().brain.providers


def choose(request: dict[str, Any], endpoint: str, connected: Collection[str]) -> Choice:
    """Choose among the models of the connected providers.

    Raises InvalidRequest, code ``provider_not_connected``, when none of them has a model that can do it.
    """
    return consider(request, endpoint, connected).choice


def consider(request: dict[str, Any], endpoint: str, connected: Collection[str]) -> Decision:
    """Choose as ``choose`` does, and tell all that led to it."""
    titles = {name: provider.title for name, provider in parts().providers.items()}
    return decide(parts().brain, request, endpoint, connected, titles)


def decide(
    rules: Rules, request: dict[str, Any], endpoint: str, connected: Collection[str], titles: Mapping[str, str]
) -> Decision:
    """Choose by these rules. ``titles`` are the providers' names for people."""
    prompt = prompts.read(endpoint, request)
    judgement = judge(rules, prompt, request, endpoint)
    task = rules.tasks[judgement.task]
    models = [model for model in task.models if endpoint in model.endpoints]
    candidates = _candidates(models, prompt, request, connected)
    usable = _usable(candidates)
    if not usable:
        raise _nothing_fits(rules, candidates, connected, titles)
    choice = Choice(
        model=usable[0].name,
        provider=usable[0].provider,
        task=task.name,
        reason=_reason(judgement, usable[0], candidates),
        others=tuple((model.name, model.provider) for model in usable[1:]),
    )
    return Decision(choice, judgement, candidates)


# ---- what it is about


def judge(rules: Rules, prompt: Prompt, request: dict[str, Any], endpoint: str) -> Judgement:
    """Tell what a request is about."""
    if endpoint == EMBEDDINGS:
        return Judgement(EMBEDDINGS, [], {})
    findings = sorted(_findings(rules, prompt, request), key=lambda finding: -finding.weight)
    scores = dict.fromkeys(rules.tasks, 0.0)
    for finding in findings:
        scores[finding.task] += finding.weight
    if prompt.characters + prompt.tokens * _CHARACTERS_PER_TOKEN >= rules.long_context_characters:
        return Judgement("long_context", [_length(prompt), *findings], scores)
    best = max(scores, key=lambda name: scores[name])
    first = next(iter(rules.tasks))
    return Judgement(best if scores[best] >= rules.threshold else first, findings, scores)


def _findings(rules: Rules, prompt: Prompt, request: dict[str, Any]) -> Iterable[Finding]:
    places = [("last", prompt.last), ("earlier", "\n".join(map(_excerpt, prompt.earlier))), ("system", prompt.system)]
    heaviest: dict[str, Finding] = {}
    for where, text in places:
        for finding in _findings_in(rules, where, plain(_excerpt(text))):
            # What was said twice is not twice as true: the place where it weighs most counts.
            known = heaviest.get(finding.name)
            if known is None or known.weight < finding.weight:
                heaviest[finding.name] = finding
    yield from heaviest.values()
    for name in _OUTPUT_FIELDS:
        tokens = request.get(name)
        if isinstance(tokens, int) and 0 < tokens <= rules.budget_output_tokens:
            yield Finding("budget", "a very short answer", (f"{name} {tokens}",), _REQUEST, rules.threshold)
            return


def _findings_in(rules: Rules, where: str, text: str) -> Iterator[Finding]:
    words: dict[int, dict[str, None]] = {}
    for found in rules.lexicon.find(text):
        words.setdefault(found.number, {})[found.words] = None
    for number, different in words.items():
        task, signal = rules.signals[number]
        told = tuple(different)[: signal.most]
        yield Finding(task, signal.name, told, where, round(signal.weight * len(told) * rules.shares[where], 2))


def _length(prompt: Prompt) -> Finding:
    told = f"{prompt.characters + prompt.tokens * _CHARACTERS_PER_TOKEN:,} characters"
    return Finding("long_context", told, (told,), _REQUEST, 0.0)


def _excerpt(text: str) -> str:
    if len(text) <= _FIRST_CHARACTERS + _LAST_CHARACTERS:
        return text
    return f"{text[:_FIRST_CHARACTERS]}\n{text[-_LAST_CHARACTERS:]}"


# ---- who can do it


def _candidates(
    models: Iterable[Model], prompt: Prompt, request: dict[str, Any], connected: Collection[str]
) -> list[Candidate]:
    tokens = prompt.characters // _CHARACTERS_PER_TOKEN + prompt.tokens
    return [
        Candidate(
            model,
            _NOT_CONNECTED
            if model.provider not in connected
            else _unfit(model, prompt, request) or (_TOO_SHORT if model.context_tokens < tokens else None),
        )
        for model in models
    ]


def _usable(candidates: Iterable[Candidate]) -> list[Model]:
    """Return the models that can be taken; when all read too little the one that reads most, as our count is rough."""
    usable = [one.model for one in candidates if one.why_not is None]
    short = [one.model for one in candidates if one.why_not == _TOO_SHORT]
    return usable or sorted(short, key=lambda model: -model.context_tokens)


def _unfit(model: Model, prompt: Prompt, request: dict[str, Any]) -> str | None:
    if prompt.has_images and "images" not in model.can:
        return "cannot see images"
    if prompt.has_tools and "tools" not in model.can:
        return "cannot use tools"
    refused = next((name for name in model.refuses if request.get(name) is not None), None)
    return f"does not take {refused}" if refused else None


def _nothing_fits(
    rules: Rules, candidates: Iterable[Candidate], connected: Collection[str], titles: Mapping[str, str]
) -> InvalidRequest:
    missing = sorted({one.model.provider for one in candidates if one.why_not == _NOT_CONNECTED})
    found = "No connected model can do this" if rules.providers & set(connected) else "No provider key is connected"
    names = " or ".join(titles.get(name, name) for name in missing)
    advice = f"Add a key of {names} in Settings, API Keys." if names else "Name a model instead of ARKAbrain."
    return InvalidRequest(
        f"{found}. {advice}", code="provider_not_connected", param="model", details={"providers": missing}
    )


def _reason(judgement: Judgement, model: Model, candidates: Iterable[Candidate]) -> str:
    task = judgement.task
    told = [finding for finding in judgement.findings if finding.task == task][:_TOLD_SIGNALS]
    seen = " and ".join(finding.name for finding in told) or "no sign of another task"
    if told and told[0].where != _REQUEST:
        seen = f"mentions {seen}"
    if task == EMBEDDINGS:
        seen = "the endpoint is for them"
    before = itertools.takewhile(lambda one: one.model != model, candidates)
    fits = " that fits the request" if any(one.why_not not in (None, _NOT_CONNECTED) for one in before) else ""
    return f"{task}: {seen}; {model.name} is the first connected model for {task}{fits}"[:_LONGEST_REASON]
