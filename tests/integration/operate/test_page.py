# SPDX-License-Identifier: Apache-2.0
"""The page in Airflow's UI, in a real browser: 100,000 tasks wait, and 10,000 run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from operate_answers import NASTY

from .chromium import Page, browsing_the_page
from .conftest import Server, serving

pytestmark = [pytest.mark.integration("sqlite"), pytest.mark.recent]

SECONDS = 2.0
"""Until a view shows its answer, with Airflow's UI loaded before; the machine may be busy with other things."""

FAST_TIMERS = """
const later = window.setTimeout;
window.setTimeout = (call, delay, ...rest) => later(call, delay > 1000 ? 40 : delay, ...rest);
"""
"""Run in the page before its own scripts: what would happen in seconds happens at once."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing_the_page(tmp_path_factory.mktemp("profile")) as page:
        page.size(1400, 900)
        yield page


@pytest.fixture
def page(tab: Page, server: Server) -> Iterator[Page]:
    """Of somebody who may give orders."""
    tab.dark(False)
    tab.errors.clear()
    log_in(tab, server, "operator")
    yield tab
    assert tab.errors == []


def log_in(page: Page, server: Server, user: str) -> None:
    page.cookie(server.url, "_token", server.token(user))


def show(page: Page, server: Server, view: str = "backends", **parameters: str) -> None:
    query = "".join(f"&{name}={value}" for name, value in parameters.items())
    page.goto(f"{server.url}/plugin/dispatch?view={view}{query}")


VIEWS = {
    "backends": "Schedulers",
    "waiting": "Place",
    "task": "Give a task instance",
    "try": "Where would a task go?",
}


def test_airflow_leads_to_it(page: Page, server: Server) -> None:
    """From its menu."""
    page.goto(f"{server.url}/")
    page.until("[...document.querySelectorAll('button')].some((b) => b.innerText.includes('Browse'))")
    page.evaluate(
        "[...document.querySelectorAll('button')].find((b) => b.innerText.includes('Browse')).click()"
    )
    page.until("document.querySelector('a[href$=\"plugin/dispatch\"]')")
    page.evaluate("document.querySelector('a[href$=\"plugin/dispatch\"]').click()")
    page.until_text("Schedulers")


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_the_colours_of_the_host(page: Page, server: Server, view: str, is_dark: bool) -> None:
    """Its ground is light or dark as Airflow's, and no text is as its ground."""
    page.dark(is_dark)
    show(page, server, view)
    page.until_text(VIEWS[view])
    ground, text, host = (
        brightness(page, f"getComputedStyle(document.querySelector('{of}')).{name}")
        for of, name in ((".dsp", "backgroundColor"), (".dsp", "color"), ("html", "backgroundColor"))
    )
    assert (ground < 80, text > 170) == (is_dark, is_dark)
    assert ground == host


def brightness(page: Page, color: str) -> float:
    """Of a colour in any notation, from 0 to 255."""
    script = f"""(() => {{
        const pen = Object.assign(document.createElement('canvas'), {{width: 1, height: 1}}).getContext('2d');
        pen.fillStyle = {color};
        pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    }})()"""
    return float(sum(page.evaluate(script)) / 3)


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_the_screen(page: Page, server: Server, view: str, width: int) -> None:
    """But tables, which scroll by themselves."""
    page.size(width, 900)
    show(page, server, view)
    page.until_text(VIEWS[view])
    wide = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.dsp'))")
    page.size(1400, 900)
    assert wide <= 0


def test_names_are_shown_as_text(page: Page, server: Server) -> None:
    """With markup, quotes, a newline and 250 characters."""
    for view in ("backends", "waiting"):
        show(page, server, view)
        page.until_text(VIEWS[view])
        texts = "[...document.querySelectorAll('.dsp .dsp-name')].map((e) => e.textContent)"
        if view == "waiting":
            assert any(text.startswith(NASTY) for text in page.evaluate(texts))
        assert page.evaluate("document.querySelectorAll('.dsp img').length") == 0
        assert "hacked" not in page.evaluate("document.title")


def test_it_is_quick_with_a_hundred_thousand_waiting_tasks(page: Page, server: Server) -> None:
    """The number is told, the first ones are shown, and more on demand."""
    show(page, server)
    page.until_text("100,000 tasks")
    began = time.monotonic()
    page.evaluate("document.querySelector('.dsp a[href*=\"view=waiting\"]').click()")
    page.until_text("100,000 tasks wait.", "The first 100 of 100,000")
    assert time.monotonic() - began < SECONDS
    began = time.monotonic()
    page.evaluate(
        "[...document.querySelectorAll('.dsp button')].find((b) => b.innerText.startsWith('Show')).click()"
    )
    page.until_text("The first 1,000 of 100,000")
    assert time.monotonic() - began < 5 * SECONDS


def test_why_a_task_waits_is_two_clicks_away(page: Page, server: Server) -> None:
    """From the page of backends: what waits for one, and why this task does."""
    show(page, server)
    page.until_text("100,000 tasks")
    page.evaluate("document.querySelector('.dsp a[href*=\"backend=gpu\"]').click()")
    page.until_text("train_1 [1]", "usually after 4 min")
    page.evaluate("document.querySelectorAll('.dsp a[href*=\"view=task\"]')[1].click()")
    page.until_text(
        "It waits: every target that it may use is full.",
        "Place 7 for gpu",
        "It may start in",
        "it started 4 min after it was scheduled",
    )


def test_an_answer_that_is_not_the_servers_is_told_in_words(page: Page, server: Server) -> None:
    """A proxy's login page, say; and what was chosen before can be left."""
    page.before_scripts("window.fetch = async () => new Response('<html>', {status: 200});")
    try:
        show(page, server, "task", dag_id="it_dag", run_id="r", task_id="t3", try_number="1")
        page.until_text("The answer cannot be read", "Show its last try")
    finally:
        page.before_scripts(None)


def test_filters_stand_in_the_address(page: Page, server: Server) -> None:
    """So that it can be sent to somebody."""
    show(page, server, "waiting")
    page.until_text("it_retried")
    page.evaluate("document.querySelector('.dsp-filters input').focus()")
    page.type("it_dag")
    page.press("Enter")
    page.until("location.search.includes('dag_id=it_dag')")
    page.until("!document.querySelector('.dsp').innerText.includes('it_retried')")


def test_an_order_is_given_by_keyboard(page: Page, server: Server) -> None:
    """A reason is needed; Escape leaves everything as it is; then it is taken back."""
    show(page, server)
    page.until_text("Schedulers")
    page.evaluate("document.querySelector('.dsp-header button').focus()")
    tab_to(page, "Drain local")
    page.press("Enter")
    page.until("document.querySelector('.dsp dialog[open]')")
    page.press("Escape")
    page.until("!document.querySelector('.dsp dialog')")
    assert page.focused() == "Drain local"
    page.press("Enter")
    page.until("document.activeElement.tagName === 'INPUT'")
    page.press("Enter")
    page.until_text("Give a reason.")
    page.type("new drivers")
    page.press("Enter")
    page.until_text("local is draining.", "Draining", "Drain by operator", "new drivers")
    tab_to(page, "Resume local")
    page.press("Enter")
    page.until("document.activeElement.tagName === 'INPUT'")
    page.press("Enter")
    page.until_text("local takes work again.")
    page.until("!document.querySelector('.dsp').innerText.includes('Draining')")


def test_an_order_about_a_backend_that_fails_is_taken_back(page: Page, server: Server) -> None:
    """It goes on failing under the order."""
    show(page, server)
    page.until_text("Schedulers")
    page.evaluate("document.querySelector('[aria-label=\"Drain celery\"]').click()")
    page.until("document.activeElement.tagName === 'INPUT'")
    page.type("repair")
    page.press("Enter")
    page.until_text("Failing", "Drain by operator")
    page.until("document.querySelector('[aria-label=\"Resume celery\"]')")
    page.evaluate("document.querySelector('[aria-label=\"Resume celery\"]').click()")
    page.until("document.activeElement.tagName === 'INPUT'")
    page.press("Enter")
    page.until_text("celery takes work again.")


def tab_to(page: Page, name: str) -> None:
    """Press Tab until that has the focus."""
    for _ in range(80):
        if page.focused() == name:
            return
        page.press("Tab")
    raise AssertionError(f"Tab does not lead to {name!r}.")


def test_the_dialog_says_what_becomes_of_the_waiting_tasks(page: Page, server: Server) -> None:
    """Before the order is given."""
    show(page, server)
    page.until_text("Schedulers")
    page.evaluate("document.querySelector('[aria-label=\"Drain gpu\"]').click()")
    page.until_text(
        "10,000 tasks run there and go on; 16 more have not begun, which recall takes back.",
        "100,000 tasks wait for it: 99,998 have another target (local 99,998), 2 wait until it is resumed.",
    )
    page.press("Escape")


def test_what_has_not_begun_is_recalled(page: Page, server: Server) -> None:
    """For a reason; the dialog says how much that is."""
    show(page, server)
    page.until_text("Schedulers")
    page.evaluate("document.querySelector('[aria-label=\"Recall gpu\"]').focus()")
    page.press("Enter")
    page.until_text("16 tasks of 10,016 there have not begun.")
    page.press("Enter")
    page.until_text("Give a reason.")
    page.type("no nodes")
    page.press("Enter")
    page.until_text("gpu gives back what has not begun.")


def test_what_runs_on_a_backend_is_unfolded_by_keyboard(page: Page, server: Server) -> None:
    """With names as text, and none of a Dag that the user may not read; once more, and it is gone."""
    show(page, server)
    page.until_text("Schedulers")
    page.evaluate("document.querySelector('.dsp-header button').focus()")
    tab_to(page, "What gpu has")
    page.press("Enter")
    page.until_text("2 of 10,016 tasks", "train_gpu", "has not begun")
    assert ("table", "Tasks on gpu") in page.accessible()
    assert "secret_task" not in page.text()
    assert page.evaluate("document.querySelectorAll('.dsp img').length") == 0
    page.press("Enter")
    page.until("!document.querySelector('.dsp').innerText.includes('train_gpu')")


def test_what_people_have_changed_is_listed(page: Page, server: Server) -> None:
    """Who has given which order, and what is new in the routing file; for readers, too."""
    log_in(page, server, "reader")
    show(page, server)
    page.until_text("drain local: new nodes", "by ann", "celery is now gpu", "on one.example.com")
    assert ("heading", "Changes") in page.accessible()


def test_a_reader_is_shown_no_orders(page: Page, server: Server) -> None:
    """And everything else."""
    log_in(page, server, "reader")
    show(page, server)
    page.until_text("Schedulers")
    assert not [name for role, name in page.accessible() if role == "button" and name.startswith("Cordon")]
    assert "Orders" not in page.text()


def test_a_user_without_rights_is_shown_no_page(page: Page, server: Server) -> None:
    """Airflow itself hides the plugin."""
    log_in(page, server, "nobody")
    show(page, server)
    page.until("document.body.innerText.includes('Page Not Found')")
    assert not page.evaluate("!!document.querySelector('.dsp')")
    page.errors.clear()


def test_a_screen_reader_is_told_everything(page: Page, server: Server) -> None:
    """Tables and pictures have names, buttons say whom they concern, and the view is named as the current one."""
    show(page, server)
    page.until_text("Schedulers")
    told = page.accessible()
    for expected in [
        ("heading", "Dispatch"),
        ("navigation", "Views of Dispatch"),
        ("table", "Backends"),
        ("table", "Schedulers"),
        ("columnheader", "Waiting for it"),
        ("button", "Cordon gpu"),
        ("image", "10,000 of 10,000 slots in use, 16 given ahead"),
    ]:
        assert expected in told
    assert any(role == "image" and name.startswith("In the last 30 minutes: ") for role, name in told)
    assert page.evaluate("document.querySelector('.dsp-views [aria-current=page]').innerText") == "Backends"
    assert not [
        role for role, name in told if role in ("button", "textbox", "combobox", "table") and not name
    ]


@pytest.fixture
def fast(page: Page) -> Iterator[Page]:
    page.before_scripts(FAST_TIMERS)
    yield page
    page.before_scripts(None)


def test_nothing_is_asked_while_nobody_looks(fast: Page, server: Server) -> None:
    """And at once when somebody looks again."""
    show(fast, server)
    fast.until_text("Schedulers")
    wait_for_questions(fast, server)
    fast.visible(False)
    still(fast, server)
    before = server.asked()["status"]
    fast.visible(True)
    fast.until_text("Schedulers")
    wait_for_questions(fast, server, before)


def test_updates_can_be_paused(fast: Page, server: Server) -> None:
    """By a button that says so."""
    show(fast, server)
    fast.until_text("Schedulers")
    wait_for_questions(fast, server)
    fast.evaluate("document.querySelector('.dsp-header button').click()")
    fast.until("document.querySelector('.dsp-header button').ariaPressed === 'true'")
    still(fast, server)


def wait_for_questions(page: Page, server: Server, before: int | None = None) -> None:
    """Until it has asked again, three times."""
    start = server.asked()["status"] if before is None else before
    for _ in range(200):
        if server.asked()["status"] >= start + 3:
            return
        page.evaluate("new Promise((done) => later(done, 20))")
    raise AssertionError("Nothing was asked.")


def still(page: Page, server: Server) -> None:
    """Nothing is asked in the time of ten questions, once those under way are answered."""
    page.evaluate("new Promise((done) => later(done, 200))")
    before = server.asked()["status"]
    page.evaluate("new Promise((done) => later(done, 500))")
    assert server.asked()["status"] == before


def test_it_is_a_tab_of_a_task_instance(page: Page, server: Server) -> None:
    """Airflow tells it which one."""
    token = server.token("reader")
    run = server.send("/api/v2/dags/it_dag/dagRuns", token).json["dag_runs"][0]["dag_run_id"]
    page.goto(f"{server.url}/dags/it_dag/runs/{run}/tasks/t3")
    page.until("[...document.querySelectorAll('a')].some((a) => a.innerText.trim() === 'Dispatch')")
    page.evaluate(
        "[...document.querySelectorAll('a')].find((a) => a.innerText.trim() === 'Dispatch').click()"
    )
    page.until_text("t3 of it_dag", "It waits", "queued by the scheduler")


def test_a_pasted_file_is_compared(page: Page, server: Server) -> None:
    """Its mistakes, then its changes and the tasks that would go elsewhere."""
    show(page, server, "try")
    page.until_text("Routing file")
    paste(page, "default: nowhere")
    page.until_text("mistake", "a scheduler would refuse it")
    paste(
        page,
        """
backends:
  celery: {executor: CeleryExecutor, slots: 16}
  gpu: {executor: KubernetesExecutor, slots: 4}
  local: {executor: LocalExecutor, slots: 8}
routes:
  - {queue: gpu, to: [gpu, local]}
  - {queue: burst-*, to: [celery, local], overflow_after: 30}
default: celery
""",
    )
    page.until_text(
        "before a restart", "routes[0]", "of the first 1,000 of 100,000 waiting tasks", "gpu, local"
    )


def paste(page: Page, text: str) -> None:
    page.evaluate("document.querySelector('.dsp textarea').select()")
    page.type(text)
    page.evaluate("document.querySelector('.dsp textarea').form.requestSubmit()")


def test_it_says_where_a_task_would_go(page: Page, server: Server) -> None:
    """The only target of its route fails now."""
    show(page, server, "try")
    page.until_text("Explain")
    page.evaluate("document.querySelector('.dsp form button').click()")
    page.until_text("Now: it waits", "With all slots free: celery", "refuses connections")


def test_it_is_found_below_a_path(tab: Page, database_url: str, tmp_path: Path) -> None:
    """Where Airflow shares its host with others."""
    env = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url}
    with serving(tmp_path, env, path="/air/flow") as server:
        log_in(tab, server, "reader")
        show(tab, server)
        tab.until_text("Schedulers")
        href = tab.evaluate("document.querySelector('.dsp-views a').getAttribute('href')")
        assert href.startswith("/air/flow/plugin/dispatch")
