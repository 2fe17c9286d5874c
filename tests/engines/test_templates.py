"""Chat templates: rendered as their makers meant, and harmless when their makers meant harm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chatbot.engines.templates import BAD_TEMPLATE, NO_TEMPLATE, ChatTemplate
from chatbot.types import Turn
from tests.tiny_models import TEMPLATE

TALK = [
    Turn("system", "Be exact."),
    Turn("user", "Xin chào 😀"),
    Turn("assistant", "Chào bạn."),
    Turn("user", "Điều 5 nói gì?"),
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LINES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture
def template_of():
    made = []

    def make(source: str | None) -> ChatTemplate:
        made.append(ChatTemplate(source, TOKENS))
        return made[-1]

    yield make
    for template in made:
        template.close()


def test_the_models_own_template_is_used(template_of) -> None:
    template = template_of(TEMPLATE)
    rendered = template.render(TALK)
    assert rendered.template == template.kind == "model"
    assert rendered.notice is None
    assert rendered.text.startswith("<|im_start|>system\nBe exact.<|im_end|>\n<|im_start|>user\n")
    assert rendered.text.endswith("Điều 5 nói gì?<|im_end|>\n<|im_start|>assistant\n<think>")


def test_thinking_reaches_the_template(template_of) -> None:
    assert template_of(TEMPLATE).render(TALK, thinking=False).text.endswith("assistant\n")


def test_what_hugging_face_offers_templates_is_there(template_of) -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ strftime_now('%Y') }}"
    )
    text = template_of(source).render(TALK).text
    assert text.startswith('<s>{"role": "user", "content": "Xin chào 😀"}')
    assert text.endswith(time.strftime("%Y"))


REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + LINES
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
MUST_ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}\n{% endfor %}"
)
WANTS_PARTS = (
    "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}\n{% endfor %}"
)


@pytest.mark.parametrize("source", [REFUSES_SYSTEM, DROPS_SYSTEM, MUST_ALTERNATE, WANTS_PARTS])
def test_templates_with_a_will_of_their_own_get_everything_that_was_said(
    template_of, source
) -> None:
    rendered = template_of(source).render([*TALK, Turn("user", "And article 6?")])
    assert rendered.template == "model"
    for said in ("Be exact.", "Xin chào 😀", "Điều 5 nói gì?", "And article 6?"):
        assert said in rendered.text


def test_without_a_template_the_built_in_one_is_used_and_that_is_said(template_of) -> None:
    rendered = template_of(None).render(TALK)
    assert rendered.template == "built-in"
    assert rendered.notice == NO_TEMPLATE
    assert rendered.text == (
        "Be exact.\n\nUser: Xin chào 😀\n\nAssistant: Chào bạn.\n\nUser: Điều 5 nói gì?\n\nAssistant:"
    )
    assert rendered.stops


def test_a_growing_conversation_begins_as_it_did(template_of) -> None:
    for source in (TEMPLATE, None):
        template = template_of(source)
        first = template.render(TALK[:2], thinking=False).text
        assert template.render(TALK, thinking=False).text.startswith(first)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ ''|attr('__class__') }}{{ ().__class__.__base__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{% set x = ''|format|attr('__glo' ~ 'bals__') %}{{ x['os'].system('touch CANARY') }}",
    "{{ raise_exception.__globals__['sys'].modules['os'].system('touch CANARY') }}",
    "{{ strftime_now.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
    "{{ messages.append({'role': 'user'}) }}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% include '/etc/passwd' %}",
]


@pytest.mark.parametrize("attack", ESCAPES)
def test_a_template_cannot_run_code(template_of, attack: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    template = template_of(LINES + attack.replace("CANARY", str(canary)))
    start = time.monotonic()
    rendered = template.render(TALK)
    assert time.monotonic() - start < 4
    assert not canary.exists()
    assert rendered.template == "built-in"
    assert rendered.notice == BAD_TEMPLATE


BOMBS = {
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "string": "{{ 'x' * 3000000000 }}",
    "list": "{% set x = [0] * 2000000000 %}{{ x | length }}",
    "pad": "{{ '%9999999999d' | format(1) }}",
    "doubling": "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "long output": "{% for a in range(99999) %}{{ 'x' * 100 }}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "syntax": "{% for %}",
    "long source": "x" * 70_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_cannot_take_the_machine(template_of, name: str) -> None:
    template = template_of(LINES + BOMBS[name])
    template.render(TALK)  # the first one may also start the process
    start = time.monotonic()
    rendered = template.render([*TALK, Turn("user", "More.")])
    assert time.monotonic() - start < 3
    assert rendered.template == "built-in"
    assert rendered.notice == BAD_TEMPLATE
    assert rendered.text.endswith("User: More.\n\nAssistant:")


@pytest.mark.parametrize("name", ["loop", "string"])
def test_a_bomb_ends_in_time_also_the_first_time(template_of, name: str) -> None:
    template = template_of(LINES + BOMBS[name])
    start = time.monotonic()
    template.render(TALK)
    assert time.monotonic() - start < 4
