"""Whatever comes on the worker's standard input, it answers in words, and it ends when that closes."""

import json
import subprocess
import sys

import pytest

from CPS4Core.events import Failed, Finished
from CPS4Core.inference.worker import Worker

LINES = {
    "no JSON": ("hello", "no JSON object"),
    "a list": ("[]", "no JSON object"),
    "nested beyond measure": ("[" * 100_000, "no JSON object"),
    "a number beyond measure": ("1" * 10_000, "no JSON object"),
    "an unknown verb": ('{"do": "dance"}', "no request 'dance'"),
    "no verb": ("{}", "no request None"),
    "a verb that is a list": ('{"do": ["segment"]}', "no request"),
    "nothing else": ('{"do": "segment"}', "lacks 'model'"),
    "a model that is a number": (
        '{"do": "segment", "model": 3, "input": "a", "output": "b"}',
        "'model' is no text",
    ),
    "prompts that are numbers": (
        '{"do": "attend", "model": "m", "input": "a", "output": "b", "prompts": [1]}',
        "'prompts' is no text",
    ),
    "a model that is not there": (
        '{"do": "segment", "model": "nowhere", "input": "a", "output": "b"}',
        "no model folder",
    ),
    "a name with a zero": (
        '{"do": "segment", "model": "a\\u0000b", "input": "a", "output": "b"}',
        "",
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_no_request_gets_one_error_in_words(name):
    line, words = LINES[name]
    events = []
    # The last line answers too: the worker has survived.
    Worker(events.append).serve(iter([line, '{"request": "9", "do": "shutdown"}']))
    failed = [event for event in events if isinstance(event, Failed)]
    stopped = [event for event in events if isinstance(event, Finished) and event.cancelled]
    assert len(failed) + len(stopped) == 1  # a request may be stopped by the shutdown before its turn
    if failed:
        assert words in failed[0].problem
        assert failed[0].remedy
    assert events[-1].request == "9" or events[-2].request == "9"


def test_bytes_that_are_no_text_get_an_error_and_the_end_of_input_ends_the_worker():
    done = subprocess.run(
        [sys.executable, "-m", "CPS4Core.cli", "worker"],
        input=b'\xff\xfe\xfa\n{"request": "\xc3", "do": "dance"}\n' + b"[" * 50_000 + b"\n",
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events].count("failed") >= 2
    assert b"Traceback" not in done.stderr
