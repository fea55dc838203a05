"""Conversation files: reading, writing, and errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    (tmp_path / "a.png").touch()
    assert write_conversations(path, [GOOD, {"messages": GOOD["messages"]}]) == 2
    first, second = read_conversations(path)
    assert first == {**GOOD, "images": [str(tmp_path / "a.png")]}
    assert second == {**GOOD, "images": []}
    elsewhere = read_conversations(path, image_root="/pictures", missing_pictures="ignore")
    assert elsewhere[0]["images"] == ["/pictures/a.png"]


def test_a_bad_record_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("old")
    with pytest.raises(PromptError, match="record 2"):
        write_conversations(path, [GOOD, {"messages": []}])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


def test_llava_form(tmp_path: Path) -> None:
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
    (tmp_path / "b.jpg").touch()
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([llava], indent=1))
    assert read_conversations(path) == [expected]
    path.write_text(json.dumps(llava) + "\n\n")
    assert read_conversations(path) == [expected]


QA = """{"messages": [{"role": "user", "content": "why"},
 {"role": "assistant", "content": "so"}]}""".replace("\n", "")


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
        ('{"messages": [{"role": "user", "content": "x"}], "video": "a.mp4"}', "video"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "message is a question"),
        ('{"messages": [{"role": "user", "content": "<image>"}]}', "non-empty text"),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', "is unknown"),
        (QA.replace("why", "<image>why"), r"1 <image> mark\(s\) but 0 picture"),
        (
            QA.replace("why", "<image><image>why").replace("{", '{"image": "a.png", ', 1),
            "2 <image>",
        ),
        (QA.replace("why", "\\ud800"), "surrogate"),
        (QA.replace("{", '{"image": "https://host/a.png", ', 1), "address"),
        (QA.replace("{", '{"conversations": [], ', 1), "one of the keys"),
        ("[" * 100_000, "JSON"),
        ('{"conversations": [{"from": "robot", "value": "x"}]}', "turn 0"),
        ('{"conversations": "x"}', "must be a non-empty list"),
        ('{"conversations": [], "image": "a", "images": ["b"]}', "different pictures"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: Any, match: str) -> None:
    path = tmp_path / "bad.jsonl"
    (tmp_path / "a.png").touch()
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(PromptError, match=match) as caught:
        read_conversations(path)
    assert f"{path}, line 2" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="absent.jsonl"):
        read_conversations(tmp_path / "absent.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(PromptError, match="no conversation"):
        read_conversations(empty)
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="cannot be read"):
        read_conversations(empty)


def test_system_message_may_stand_first() -> None:
    messages = [{"role": "system", "content": "Be short."}, *GOOD["messages"]]
    assert parse_conversation({"messages": messages})["messages"] == messages


ANSWER = {"role": "assistant", "content": "A dog."}


def saved(folder: Any, *records: Any, name: str = "train.jsonl") -> Any:
    path = folder / name
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("What is it?\n<image>", "<image>\nWhat is it?"),
        ("What <image> is it?", "<image>\nWhat  is it?"),
        ("<image>\nWhat is it?", "<image>\nWhat is it?"),
        ("What is it?", "What is it?"),
        ("<image> or <image>?", "<image> or <image>?"),
    ],
)
def test_the_mark_of_a_llava_turn_goes_to_the_front(given: str, expected: str) -> None:
    images = ["a.png"] * max(1, given.count("<image>"))
    llava = [{"from": "human", "value": given}, {"from": "gpt", "value": "A <image>."}]
    messages = parse_conversation({"image": images, "conversations": llava})["messages"]
    assert [m["content"] for m in messages] == [expected, "A <image>."]
    # Only there: whoever writes role and content has said where the picture goes.
    own = [{"role": "user", "content": given}, ANSWER]
    for key in ("messages", "conversations"):
        assert parse_conversation({"images": images, key: own})["messages"] == own


def test_later_llava_turns_are_changed_too() -> None:
    turns = [("human", "a"), ("gpt", "b"), ("human", "c\n<image>"), ("gpt", "d")]
    llava = [{"from": name, "value": text} for name, text in turns]
    record = parse_conversation({"image": "a.png", "conversations": llava})
    assert record["messages"][2]["content"] == "<image>\nc"


@pytest.mark.parametrize(
    "form",
    [
        {"images": ["a.png"], "messages": [{"role": "user", "content": "<image>\nHi"}, ANSWER]},
        {
            "image_path": "a.png",
            "conversations": [
                {"from": "human", "value": "Hi<image>"},
                {"from": "assistant", "value": "A dog."},
            ],
        },
        {
            "image": "a.png",
            "conversations": [
                {"from": "user", "value": "Hi <image>"},
                {"from": "assistant", "value": "A dog."},
            ],
        },
        {
            "image": ["a.png"],
            "conversations": [{"role": "user", "content": "<image>\nHi"}, ANSWER],
        },
    ],
)
def test_forms_of_public_sets_with_fields_that_only_describe(tmp_path: Path, form: Any) -> None:
    (tmp_path / "a.png").touch()
    more = {"id": 7, "model": "", "question_id": "q", "image_id": 3, "text": "x", "video": None}
    (record,) = read_conversations(saved(tmp_path, {**more, **form}))
    assert record == {
        "images": [str(tmp_path / "a.png")],
        "messages": [{"role": "user", "content": "<image>\nHi"}, ANSWER],
    }


@pytest.mark.parametrize("nothing", ["", None, []])
def test_records_without_a_picture(nothing: Any) -> None:
    record = {"image": nothing, "conversations": [{"from": "human", "value": "Hi"}]}
    assert parse_conversation(record)["images"] == []


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "Hi"}, ANSWER]}
    for name, text in (("a.jsonl", json.dumps(record)), ("a.json", json.dumps([record]))):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_conversations(path) == [{"images": [], **record}]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "train.csv"
    rows = [
        ["Image", "question", "note", "answer"],
        ["a.png", '"What,;\tis\nit?"', "x", '"A ""dog""."'],
        ["", "", "", ""],
        ["", "Hi", "", "Hello\u2028you"],
    ]
    text = "\r\n".join(separator.join(row) for row in rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.warns(UserWarning, match=r"train.csv, line 2: .*a.png' is no file"):
        first, second = read_conversations(path)
    assert first["images"] == [str(tmp_path / "a.png")] and second["images"] == []
    assert [m["content"] for m in first["messages"]] == ["What,;\tis\nit?", 'A "dog".']
    assert [m["content"] for m in second["messages"]] == ["Hi", "Hello\u2028you"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("picture,question\na,b\n", "line 1: the first line names the columns"),
        ('question,answer\n"a\nb",c\n\nd\n', "line 5: 1 values for 2 columns"),
        ('question,answer\n"a\nb",c\nd,\n', "line 4, message 1: the content must be"),
        ('question,answer\na,"b\n', "line 2: not valid CSV"),
        ("question,answer\n", "no conversation"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(PromptError, match=match):
        read_conversations(path)


def test_pictures_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, GOOD, {**GOOD, "images": ["data:image/png;base64,AA//AA"]}, GOOD)
    with pytest.warns(UserWarning, match="2 picture.s. are missing.*line 1: .*line 3: ") as told:
        records = read_conversations(path)
    assert len(told) == 1 and told[0].filename == __file__
    assert records[1]["images"] == ["data:image/png;base64,AA//AA"]
    with pytest.raises(PromptError, match="line 1: picture .*a.png. is no file"):
        read_conversations(path, missing_pictures="error")
    with pytest.warns(UserWarning, match="2 bad record.s. of 3 are left out"):
        assert len(read_conversations(path, missing_pictures="error", skip_bad=2)) == 1
    with pytest.raises(ValueError, match="missing_pictures=.never."):
        read_conversations(path, missing_pictures="never")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.csv"])
def test_bad_records_are_left_out_up_to_a_number_and_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    good, bad = {"messages": [{"role": "user", "content": "Hi"}, ANSWER]}, {"messages": []}
    if name == "train.csv":
        path.write_text("question,answer\na,\na,b\na\n")
    elif name == "train.json":
        path.write_text(json.dumps([bad, good, 3]))
    else:
        path.write_text("\n".join(["{", json.dumps(good), json.dumps(bad)]))
    with pytest.warns(UserWarning, match=f"{name}.: 2 bad record.s. of 3 are left out: .*; "):
        assert len(read_conversations(path, skip_bad=2)) == 1
    with pytest.raises(PromptError, match="more than skip_bad=1 bad records: .*; "):
        read_conversations(path, skip_bad=1)
    with pytest.raises(PromptError, match="line 1|record 1|line 2"):
        read_conversations(path)
    with pytest.raises(ValueError, match="skip_bad=-1"):
        read_conversations(path, skip_bad=-1)


def test_a_file_without_a_good_record_is_an_error_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no conversation that can be used: .*line 1"):
        read_conversations(saved(tmp_path, {"messages": []}), skip_bad=9)


def test_questions_alone_are_read_when_nothing_is_learned(tmp_path: Path) -> None:
    question = {"messages": [{"role": "user", "content": "Hi"}]}
    assert read_conversations(saved(tmp_path, question), learn=False)[0]["images"] == []


@pytest.mark.parametrize("place", ["image", "role", "content", "key"])
def test_messages_stay_short(tmp_path: Path, place: str) -> None:
    long = "://" + "y" * 3_000_000
    turn = {"role": "user", "content": "Hi"}
    record = {"image": "a.png", "messages": [turn, ANSWER]}
    if place == "image":
        record["image"] = long
    elif place == "key":
        record = {long: 1}
    else:
        turn[place] = [long]
    with pytest.raises(PromptError) as caught:
        read_conversations(saved(tmp_path, record))
    assert len(str(caught.value)) < 500


def test_the_mark_is_the_chat_templates() -> None:
    from dl_techniques.data.records.record_forms import IMAGE_MARK
    from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import IMAGE

    assert IMAGE_MARK == IMAGE
