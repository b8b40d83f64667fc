import json
import os
import time

import pytest

from caliper.errors import CaliperError, printable
from caliper.utils.foreign import ForeignFileError, read_json, read_text, read_yaml, sealed_yaml, write_json


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x"


def refusal(path, text, read=read_yaml):
    path.write_text(text)
    with pytest.raises(ForeignFileError) as refused:
        read(path)
    return str(refused.value)


def test_plain_yaml_is_read(path):
    path.write_text("a: {b: [1, 2.5, true, null, 1e-5]}\nc: text with $ and {}\n")
    assert read_yaml(path) == {"a": {"b": [1, 2.5, True, None, 1e-5]}, "c": "text with $ and {}"}


def test_aliases_do_not_unfold(path):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    before = time.process_time()
    assert "has an alias (*a0)" in refusal(path, "\n".join(["a0: &a0 [x, x]", *levels]))
    assert time.process_time() - before < 1


def test_interpolations_are_refused_wherever_they_are(path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    for text in ("a: {b: ['${oc.env:SECRET}']}", "a: 'x${b}'", "{'${oc.env:SECRET}': 1}", "a: '\\${b}'"):
        said = refusal(path, text)
        assert "has an interpolation in" in said and "hunter2" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "is not a mapping"),
        ("", "is empty"),
        ("a: [1", "is not plain YAML"),
        ("a: !!python/object/apply:os.mkdir [ran]", "is not plain YAML"),
        ("a: " + "[" * 100, "is nested deeper than 30 levels"),
        ("a: " + "9" * 6000, "is not plain YAML"),
        ("a: x\x1b[2J", "is not plain YAML"),
        ("a: [!!binary aGVsbG8=]", "has bytes"),
        ("a: [{b: 1, 2: c}]", "has the key 2, which is no text"),
        ('a: {b: "x\\0"}', "has a character in a.b that no text has"),
        ('a: ["\\ud800"]', "has a character in a[0] that no text has"),
        ("#" * (300 << 10), "is too large"),
    ],
)
def test_what_is_no_plain_mapping_is_refused(path, text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(path, text)
    assert not (tmp_path / "ran").exists()


def test_a_changed_byte_shows(path):
    text = sealed_yaml("critic_lr: 0.0003\nseed: 1\n")
    path.write_text(text)
    assert read_yaml(path) == {"critic_lr": 0.0003, "seed": 1}
    assert "remove its first line" in refusal(path, text.replace("0.0003", "0.0004"))
    path.write_text("critic_lr: 0.0004\nseed: 1\n")  # what that makes of it
    assert read_yaml(path)["critic_lr"] == 0.0004
    write_json(path, {"success": 0.5, "seeds": (1, 2)})
    assert read_json(path) == {"success": 0.5, "seeds": [1, 2]}
    assert "has been changed since Caliper wrote it" in refusal(
        path, path.read_text().replace("0.5", "0.6"), read_json
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"a": ' + "9" * 6000 + "}",
        "\ufffe{}",
    ],
)
def test_what_is_no_json_object_is_refused(path, text):
    assert "is not" in refusal(path, text, read_json)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": ' + "[" * 30 + "]" * 30 + "}", "is nested deeper than 30 levels"),
        ('{"\\ud800": 1}', "has a character in a key that no text has"),
        ('{"a": [{"b": "\\u0000"}]}', "has a character in a[0].b that no text has"),
    ],
)
def test_json_that_breaks_whoever_takes_it_on_is_refused(path, text, said):
    assert said in refusal(path, text, read_json)


def test_only_regular_files_of_text_are_read(path, tmp_path):
    with pytest.raises(ForeignFileError, match="does not exist"):
        read_text(path, 10)
    with pytest.raises(ForeignFileError, match="is a folder, not a file"):
        read_text(tmp_path, 10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ForeignFileError, match="is not a regular file"):
        read_text(tmp_path / "pipe", 10)
    path.write_bytes(b"abc\xb0")
    with pytest.raises(ForeignFileError, match="is not text: byte 3 is no UTF-8"):
        read_text(path, 10)
    with pytest.raises(ForeignFileError, match=r"is too large \(4 bytes, at most 3\)"):
        read_text(path, 3)


def test_a_file_without_a_checksum_is_read(path):
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path) == {"a": 1}


def test_what_moves_hides_or_reorders_is_shown_escaped():
    assert printable("grün, 日本 café") == "grün, 日本 café"
    assert printable("a\n  fits  yes\x1b[1A\r\x00") == "a\\n  fits  yes\\x1b[1A\\r\\x00"
    assert printable("\u202egnp.exe\u200b\u2028\udc80") == "\\u202egnp.exe\\u200b\\u2028\\udc80"
    assert str(CaliperError("one\ntwo")) == "one\\ntwo"
