"""Paging: tokens, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.errors import AbortedError, InvalidError
from nodedev.inventory import Snapshot
from nodedev.server.paging import DEFAULT_SIZE, MAX_SIZE, SNAPSHOTS_KEPT, Page, Pages, Token
from nodedev.v1.device_service_pb2 import (
    DeviceFilter,
    DeviceXml,
    GetDeviceXmlRequest,
    GetDeviceXmlResponse,
    ListDevicesRequest,
)

NOW = Snapshot(7, {}, ())


def row(text: str) -> GetDeviceXmlResponse:
    """One item's fragment of a response."""
    return GetDeviceXmlResponse(devices=[DeviceXml(xml=text)])


async def gather(sizes: list[int], items: list[str]) -> list[str]:
    """All items over pages of those sizes, the last size again and again."""
    pages, token, got = Pages(), "", list[str]()
    while True:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        page = pages.open(GetDeviceXmlRequest(page_size=size, page_token=token), NOW)
        rest = [(str(number + 1), item) for number, item in enumerate(items)][page.offset() :]
        response = await page.fill(GetDeviceXmlResponse(), rest, row)
        assert len(response.devices) <= size
        got += [device.xml for device in response.devices]
        token = response.next_page_token
        if not token:
            return got


@given(
    st.integers(0, 2**63 - 1), st.text("0123456789abcdef", min_size=1), st.text(st.characters(codec="utf-8"))
)
def test_token_round_trip(revision: int, digest: str, after: str) -> None:
    """A token reads back as it was, is URL-safe, and a position may hold any text."""
    token = Token(revision, digest, after)
    text = token.encode()
    assert Token.decode(text) == token
    assert all(character.isalnum() or character in "-_" for character in text)


@given(st.text())
def test_any_other_text_is_refused_as_a_token(text: str) -> None:
    """What is no token is INVALID_ARGUMENT PAGE_TOKEN_INVALID, never another error."""
    try:
        Token.decode(text)
    except InvalidError as error:
        assert error.reason == "PAGE_TOKEN_INVALID"  # noqa: PT017  a token may be hit by chance


@given(st.lists(st.integers(1, 9), min_size=1), st.lists(st.text("xyz", max_size=3), max_size=30))
async def test_any_page_sizes_give_the_same_list(sizes: list[int], items: list[str]) -> None:
    """However a list is cut, together the pages are the list."""
    assert await gather(sizes, items) == items


@pytest.mark.parametrize(("asked", "given_"), [(0, DEFAULT_SIZE), (1, 1), (MAX_SIZE + 1, MAX_SIZE)])
def test_sizes(asked: int, given_: int) -> None:
    """No size is the default one, and too large a one the largest."""
    assert Pages().open(ListDevicesRequest(page_size=asked), NOW).size == given_


def test_negative_size_is_refused() -> None:
    """A negative page size is an invalid argument that names its field."""
    with pytest.raises(InvalidError) as caught:
        Pages().open(ListDevicesRequest(page_size=-1), NOW)
    assert [violation.field for violation in caught.value.violations] == ["page_size"]


def test_a_token_belongs_to_its_request() -> None:
    """Another filter, or another method, refuses the token; another page size does not."""
    pages = Pages()
    token = Token(7, pages.open(ListDevicesRequest(), NOW).digest, "a").encode()
    assert pages.open(ListDevicesRequest(page_size=3, page_token=token), NOW).after == "a"
    others = (
        ListDevicesRequest(page_token=token, filter=DeviceFilter(parent="computer")),
        GetDeviceXmlRequest(page_token=token),
    )
    for other in others:
        with pytest.raises(InvalidError) as caught:
            pages.open(other, NOW)
        assert caught.value.reason == "PAGE_TOKEN_INVALID"


async def test_a_list_goes_on_over_its_own_snapshot() -> None:
    """Pages of an older snapshot come from that one, until too many newer ones have been paged over."""
    pages = Pages()
    snapshots = [Snapshot(revision, {}, ()) for revision in range(SNAPSHOTS_KEPT + 1)]
    tokens = [await first_token(pages.open(ListDevicesRequest(), snapshot)) for snapshot in snapshots]
    assert pages.open(ListDevicesRequest(page_token=tokens[1]), NOW).snapshot is snapshots[1]
    with pytest.raises(AbortedError) as caught:
        pages.open(ListDevicesRequest(page_token=tokens[0]), NOW)
    assert caught.value.reason == "PAGE_TOKEN_EXPIRED"


async def first_token(page: Page) -> str:
    """The token of a page that is cut at once because its first item is as large as a page."""
    items = (("a", "x" * (1 << 20)), ("b", ""))
    return (await page.fill(GetDeviceXmlResponse(), items, row)).next_page_token


async def test_pages_are_cut_by_bytes() -> None:
    """A page ends with the item that brings it to a mebibyte, whatever size was asked for."""
    page = Pages().open(GetDeviceXmlRequest(page_size=MAX_SIZE), NOW)
    items = [(str(number), "x" * 300_000) for number in range(9)]
    response = await page.fill(GetDeviceXmlResponse(), items, row)
    assert len(response.devices) == 4
    assert Token.decode(response.next_page_token).after == "3"
