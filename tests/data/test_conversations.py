"""Conversation files: reading, writing, and errors that say where."""

from __future__ import annotations

import json

import pytest

from dl_techniques.data import parse_conversation, read_conversations, write_conversations
from dl_techniques.errors import PromptError

pytestmark = pytest.mark.once

GOOD = {
    "images": ["a.png"],
    "messages": [
        {"role": "user", "content": "What is it?\u2028Say."},
        {"role": "assistant", "content": "Ein Würfel 🎲"},
    ],
}


def test_round_trip(tmp_path):
    path = tmp_path / "train.jsonl"
    assert write_conversations(path, [GOOD, {"messages": GOOD["messages"]}]) == 2
    first, second = read_conversations(path)
    assert first == {**GOOD, "images": [str(tmp_path / "a.png")]}
    assert second == {**GOOD, "images": []}
    assert read_conversations(path, image_root="/pictures")[0]["images"] == ["/pictures/a.png"]


def test_a_bad_record_leaves_the_old_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("old")
    with pytest.raises(PromptError, match="record 2"):
        write_conversations(path, [GOOD, {"messages": []}])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


def test_llava_form(tmp_path):
    llava = {
        "id": "7",
        "image": "b.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "A dog."},
        ],
    }
    expected = {
        "images": [str(tmp_path / "b.jpg")],
        "messages": [
            {"role": "user", "content": "<image>\nWhat?"},
            {"role": "assistant", "content": "A dog."},
        ],
    }
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([llava], indent=1))
    assert read_conversations(path) == [expected]
    path.write_text(json.dumps(llava) + "\n\n")
    assert read_conversations(path) == [expected]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "not valid JSON"),
        ("3", "expected a JSON object"),
        ('{"images": []}', "keys"),
        ('{"messages": [], "images": []}', "non-empty list"),
        ('{"messages": [{"role": "user"}]}', "message 0"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "'robot' is unknown"),
        ('{"messages": [{"role": "user", "content": " "}]}', "non-empty text"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "take turns"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "take turns"),
        ('{"messages": [{"role": "user", "content": "x"}], "images": [1]}', "list of paths"),
        ('{"messages": [{"role": "user", "content": "x"}], "pictures": []}', "pictures"),
        ('{"conversations": [{"from": "robot", "value": "x"}]}', "turn 0"),
        ('{"conversations": "x"}', "must be a list"),
        ('{"conversations": [], "image": "a", "images": ["b"]}', "LLaVA record"),
    ],
)
def test_errors_name_file_and_line(tmp_path, line, match):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(PromptError, match=match) as caught:
        read_conversations(path)
    assert f"{path}, line 2" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PromptError, match="absent.jsonl"):
        read_conversations(tmp_path / "absent.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(PromptError, match="no conversation"):
        read_conversations(empty)
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="cannot be read"):
        read_conversations(empty)


def test_system_message_may_stand_first():
    messages = [{"role": "system", "content": "Be short."}, *GOOD["messages"]]
    assert parse_conversation({"messages": messages})["messages"] == messages
