"""Bodies that carry files, read back by an independent parser."""

import email
import email.policy

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.core.upload import multipart
from schemas import files
from schemas.errors import InvalidInput
from schemas.expression import Tree
from schemas.provider_request import MultipartSpec

BOUNDARY = "0123456789abcdef" * 4


def write(kind, parts, **given_files):
    spec = MultipartSpec(kind, {n: Tree(v) for n, v in parts.items()}, {n: n for n in given_files})
    given = {"title": 'Größe "1"', **{n: files.known(v) for n, v in given_files.items()}}
    return multipart(spec, given, {"params": given}, BOUNDARY)


def read(upload):
    head = f"Content-Type: {upload.content_type}\r\n\r\n".encode()
    body = b"".join(upload.pieces)
    assert len(body) == upload.size
    return list(email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts())


def test_form_has_texts_json_and_files_by_name():
    parts = {"title": "${params.title}", "about": {"tags": ["a"]}, "left_out": "${params.nothing}"}
    found = read(write("form-data", parts, file={"base64": "AAEN", "name": 'a"b.png'}))
    named = {part.get_param("name", header="content-disposition"): part for part in found}
    assert set(named) == {"title", "about", "file"}
    assert named["title"].get_payload(decode=True).decode() == 'Größe "1"'
    assert orjson.loads(named["about"].get_payload(decode=True)) == {"tags": ["a"]}
    assert named["about"].get_content_type() == "application/json"
    assert named["file"].get_filename() == "a%22b.png"
    assert named["file"].get_content_type() == "image/png"
    assert named["file"].get_payload(decode=True) == b"\x00\x01\r"


def test_related_parts_have_no_names():
    upload = write("related", {"metadata": {"name": "x"}}, file={"text": "hello", "name": "x.txt"})
    first, second = read(upload)
    assert upload.content_type.startswith("multipart/related; boundary=")
    assert first["content-disposition"] is None
    assert (first.get_content_type(), second.get_content_type()) == (
        "application/json",
        "text/plain",
    )


def test_stored_file_stands_in_the_body_as_a_piece():
    stored = files.StoredFile("fil_" + "0" * 26, "a.bin", "application/pdf", 5_000_000, "ab")
    upload = write("form-data", {}, file=stored.told())
    assert stored in upload.pieces
    assert upload.content() is None
    assert upload.size > 5_000_000


@given(st.text(min_size=1, max_size=300))
def test_no_name_breaks_a_header_or_leaves_its_folder(name):
    cleaned = files.clean_name(name)
    assert cleaned
    assert len(cleaned) <= files.NAME_MAX
    assert not set(cleaned) & set("\r\n\0/\\")
    assert cleaned not in (".", "..")


@pytest.mark.parametrize(
    "told", ["text/html\r\nx-evil: 1", "nonsense", "", "text/html; charset=ü", None]
)
def test_content_type_that_is_none_is_guessed_from_the_name(told):
    assert files.clean_type(told, "a.png") == "image/png"
    assert files.clean_type(told, "a") == files.UNKNOWN_TYPE


def test_id_alone_is_no_known_file():
    with pytest.raises(InvalidInput, match="no file 'fil_1'"):
        files.known("fil_1")
