# SPDX-License-Identifier: Apache-2.0
"""Secrets in texts: planted in every place of a URL, they are gone, and host and port are left."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dispatch_provider.masking import (
    MASK,
    MAX_LENGTH,
    UNREADABLE,
    LateTraceback,
    describe,
    masked,
    one_line,
    traceback_of,
)

SECRET = "S3cretPw"
SCHEMES = [
    "redis",
    "rediss",
    "amqp",
    "sentinel",
    "sqs",
    "confluentkafka",
    "db+postgresql+psycopg2",
    "db+mysql",
]
odd = st.text(alphabet="ab1/#@:%?&=;,'\"()+$!~", max_size=6)
"""Characters that people put into passwords, escaped or not."""

planted = (
    st.tuples(odd, odd)
    .map(lambda around: f"{around[0]}{SECRET}{around[1]}")
    .filter(lambda secret: not re.search(r"\?[a-z]\w*=", secret))
)
"""Not those that read as a host and its parameters."""

hosts = st.sampled_from(["broker:6379", "broker.example", "10.0.0.7:5672", "[fe80::1]:6379", "a:1,b:2"])
paths = st.sampled_from(["", "/", "//", "/0", "/airflow"])


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, str]:
    """A URL with the secret in it somewhere, and its host and port."""
    scheme, host, path = draw(st.sampled_from(SCHEMES)), draw(hosts), draw(paths)
    secret = draw(planted)
    user_info = draw(
        st.sampled_from([f"{secret}@", f":{secret}@", f"user:{secret}@", f"{secret}:@", f"AKIA:{secret}@"])
    )
    parameters = draw(st.sampled_from(["", "?ssl_cert_reqs=none", "?a=b&c=d"]))
    plain = SECRET + draw(st.text(alphabet="ab1%&:/@", max_size=5))
    in_parameters = draw(st.sampled_from([f"?password={plain}", f"?a=b&sasl_password={plain}"]))
    return draw(
        st.sampled_from(
            [
                (f"{scheme}://{user_info}{host}{path}{parameters}", host),
                (f"{scheme}://{host}{path}{in_parameters}", host),
                (f"{scheme}://user:pw@{host}{path}{in_parameters}", host),
            ]
        )
    )


@given(url=urls())
def test_a_secret_anywhere_in_a_url_is_gone_and_the_host_is_left(url):
    """Wherever it is written, and with whatever is not escaped; one that begins with a parameter has no host."""
    text, host = url
    found = masked(text)
    assert SECRET not in found
    assert text.partition("://")[0] + "://" in found
    assert host in found or re.match(r"[\w+]+://\?[\w.-]+=", text)


def test_a_url_that_begins_with_a_parameter_is_left_out_whole():
    assert masked("redis://?S3cretPw=@broker:6379") == "redis://?***"


@given(
    url=urls(),
    other=urls(),
    words=st.sampled_from(["cannot reach {} now", "'{}'", 'Post "{}": refused', "({})"]),
)
def test_a_url_in_a_sentence_and_several_in_one(url, other, words):
    """As exceptions quote them, and as brokers are listed."""
    found = masked(words.format(f"{url[0]};{other[0]}"))
    assert SECRET not in found
    assert words.partition("{")[0] in found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Port could not be cast to integer value as 'S3cretPw'",
            "Port could not be cast to integer value as ***",
        ),
        ("host=h password=S3cretPw user=u", "host=h password=*** user=u"),
        ("{'password': 'S3cretPw', 'db': 0}", "{'password': ***, 'db': 0}"),
        ("redis://:two S3cretPw words@h:6379/0 is bad", "redis://***@h:6379/0 is bad"),
        ("redis://:two\nS3cretPw\nlines@h:6379/0", "redis://***@h:6379/0"),
        ("azureblockblob://AccountName=a;AccountKey=S3cretPw==", "azureblockblob://***"),
        ("redis://:S3cretPw", "redis://***"),
        ("redis://;S3cretPw://@h:6379", "redis://***@h:6379"),
        ("redis://S3cretPw?1=@h:6379", "redis://***@h:6379"),
        ("args: eyJhbGciOiJI.eyJzdWIiOiJ.S3cretPw_x", "args: ***"),
        ("of jdbc:postgresql://user:S3cretPw@db:5432/airflow", "of jdbc:postgresql://***@db:5432/airflow"),
        ("jdbc:postgresql:loadbalance://u:S3cretPw@h/a", "jdbc:postgresql:loadbalance://***@h/a"),
        ("broker_url:redis://:S3cretPw@h:6379/0", "broker_url:redis://***@h:6379/0"),
        ("Authorization: Bearer S3cretPw", "Authorization: Bearer ***"),
        ("-H 'authorization: basic dTpTM2NyZXRQdw=='", "-H 'authorization: basic ***'"),
        (
            "{'Authorization': 'Bearer S3cretPw', 'Accept': '*/*'}",
            "{'Authorization': 'Bearer ***', 'Accept': '*/*'}",
        ),
        ("('Proxy-Authorization', b'Basic S3cretPw')", "('Proxy-Authorization', b'Basic ***')"),
        (
            "AccountName=a;AccountKey=S3cretPw/x+==;EndpointSuffix=b",
            "AccountName=a;AccountKey=***;EndpointSuffix=b",
        ),
        (
            "Endpoint=sb://a.b/;SharedAccessKeyName=Root;SharedAccessKey=S3cretPw=",
            "Endpoint=sb://a.b/;SharedAccessKeyName=Root;SharedAccessKey=***",
        ),
        (
            "BlobEndpoint=https://a.b;SharedAccessSignature=sv=1&sig=S3cretPw%3D&se=2",
            "BlobEndpoint=https://***",
        ),
        ("SharedAccessSignature=sv=1&sig=S3cretPw%3D&se=2", "SharedAccessSignature=***&sig=***&se=2"),
    ],
)
def test_other_places(text, shown):
    """Words of clients, multi-line values, URLs that are none."""
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "redis://[::1]:6379/0",
        "memory://",
        "db+sqlite:////tmp/results.db",
        'Post "https://hook.ns.svc:443/validate": dial tcp 10.0.0.1:443: connection refused',
        "see https://sqlalche.me/e/20/e3q8)",
        "https://registry.example/image: manifest image@sha256:abc not found",
        'secret "foo" not found, token expired',
        "Authorization denied: a Bearer token is missing; design=1",
    ],
)
def test_what_is_no_secret_stays(text):
    """A log line has to be of use."""
    assert masked(text) == text


def _fail() -> None:
    try:
        raise ValueError(f"redis://:{SECRET}@h:1/0")
    except ValueError as error:
        raise RuntimeError(f"no\nbroker amqp://{SECRET}@h//") from error


def test_exceptions_are_masked_in_one_line_and_in_a_traceback():
    """Also the one that caused it."""
    with pytest.raises(RuntimeError) as caught:
        _fail()
    assert describe(caught.value) == f"RuntimeError: no broker amqp://{MASK}@h//"
    assert f"redis://{MASK}@h:1/0" in traceback_of(caught.value)
    assert SECRET not in traceback_of(caught.value)


def test_of_a_long_traceback_the_end_is_shown():
    """In whole lines: what is looked through for secrets takes its time."""
    error = ValueError("\n".join([f"redis://user:{SECRET}@h:1/0 {'x' * 500}"] * 1000))
    shown = traceback_of(error)
    assert len(shown) < 30_000
    assert SECRET not in shown
    assert {line.partition(" ")[0] for line in shown.split("\n")} == {f"redis://{MASK}@h:1/0"}


def test_a_secret_that_begins_before_what_is_shown_of_a_traceback_is_gone():
    """It may have several lines, and is known by the first one."""
    key = "\n".join(f"{SECRET}{number}" for number in range(200))
    error = ValueError(f"secret='{key}'\n" + "\n".join("x" * 99 for _ in range(180)))
    assert SECRET not in traceback_of(error)


def test_a_traceback_that_is_not_written_is_not_read(monkeypatch):
    """Thousands of refusals that nobody logs cost nothing."""
    error, read = ValueError("no"), []
    monkeypatch.setattr(traceback, "format_exception", lambda it: read.append(it) or ["no"])
    late = LateTraceback(error)
    assert read == []
    assert str(late) == "\nno"
    assert read == [error]


def test_a_line_has_an_end():
    """Somebody else's text may be long."""
    assert len(one_line("x" * 2 * MAX_LENGTH)) == MAX_LENGTH


@pytest.mark.parametrize("rest", [f"redis://user:{SECRET}@h", f"eyJhbGciOiJI.{SECRET}.x"])
def test_a_text_is_not_cut_in_the_middle_of_a_secret(rest):
    """By its end alone it is known to be one."""
    for length in range(3900, 4000):
        text = f"redis://h:1/0?a={'x' * length} {rest}"
        assert SECRET[:4] not in one_line(text)
        assert SECRET[:4] not in describe(ValueError(text))


class NoText(Exception):
    """Of a library that gives what is no text."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]


def test_an_exception_whose_text_cannot_be_read_is_described_all_the_same():
    """It must cost nothing else than itself."""
    assert describe(NoText()) == f"NoText: {UNREADABLE}"
    assert "NoText" in traceback_of(NoText())
