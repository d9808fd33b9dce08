"""The routes of the page. Imported by the api-server alone, with the first request.

The templates escape every value. Pages contain no inline script or style, and their Content-Security-Policy forbids
them. Routes only read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from airflow.api_fastapi.common.db.common import SessionDep  # noqa: TC002  FastAPI reads annotations
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from airflow_provider_gemini_batch import __version__
from airflow_provider_gemini_batch.ui import MOUNT, queries
from airflow_provider_gemini_batch.ui.access import readable_dag, readable_dags
from airflow_provider_gemini_batch.ui.addresses import Place
from airflow_provider_gemini_batch.ui.batches import Short, State, Tiles, read_batch
from airflow_provider_gemini_batch.ui.charts import column_chart, line_chart
from airflow_provider_gemini_batch.ui.costs import add_up, first_moment
from airflow_provider_gemini_batch.ui.pages import render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response

ROWS_A_PAGE: Final = 50
MOST_COST_ROWS: Final = 400
REFRESH_SECONDS: Final = 10
#: The periods that the list offers, in days; None for all.
PERIODS: Final[dict[str, int | None]] = {"1": 1, "7": 7, "30": 30, "90": 90, "all": None}
COST_DAYS: Final = (7, 30, 90)
_WEEK: Final = timedelta(days=7)
_MOST_DIGITS: Final = 8
_CHOICE_ACTIVE: Final = "active"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

app = FastAPI(title="Gemini batches", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

ReadableDags = Annotated[frozenset[str], Depends(readable_dags)]
ReadableDag = Annotated[str, Depends(readable_dag)]


@dataclass(frozen=True)
class Visit:
    """A request for a page about all Dags that the user may read."""

    request: Request
    readable: ReadableDags
    session: SessionDep

    def dags(self) -> list[str]:
        """Return the Dags that have batches."""
        return [each for each in queries.dags(self.session) if each in self.readable]


AnyVisit = Annotated[Visit, Depends()]


@app.middleware("http")
async def secure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Return a response with security headers added."""
    if b"%00" in request.scope["query_string"]:  # PostgreSQL takes no such text
        response: Response = await explain(request, AnyHTTPException(404, "No name holds the character U+0000."))
    else:
        response = await call_next(request)
    response.headers.update(_HEADERS)
    if not request.url.path.startswith(f"{_base(request)}{MOUNT}/static/"):
        response.headers["Cache-Control"] = "no-store"
    return response


@app.exception_handler(AnyHTTPException)
async def explain(request: Request, error: AnyHTTPException) -> HTMLResponse:
    """Return an error page."""
    known = {
        401: ("You are not signed in", "Sign in to Airflow, then open this page again."),
        403: ("Not for you", "Your Airflow user may not see these batches. Ask for permission to read the Dag."),
        404: ("Nothing here", str(error.detail)),
    }
    title, text = known.get(error.status_code, ("This did not work", str(error.detail)))
    return _page(request, "message.html", status=error.status_code, title=title, text=text)


@app.get("/", response_class=HTMLResponse)
def show_list(
    *,
    visit: AnyVisit,
    dag: str = "",
    state: str = "",
    model: str = "",
    days: str = "7",
    q: str = "",
    page: str = "1",
) -> HTMLResponse:
    """Return the page with the list of batches, newest first."""
    now, session, dags = datetime.now(tz=timezone.utc), visit.session, visit.dags()
    days = days if days in PERIODS else "7"
    period = PERIODS[days]
    # The tiles always cover a week, so the scan must too.
    since = None if period is None else now - max(_WEEK, timedelta(days=period))
    begin = None if period is None or period >= _WEEK.days else now - timedelta(days=period)
    tiles, models = Tiles(now), set()
    # A list for each member of the keys, since thousands of tuples would start garbage collections.
    runs: list[int] = []
    tasks: list[str] = []
    indexes: list[int] = []
    for batch in map(Short, queries.scan(session, queries.Scan(dags, since, q[:200]))):
        tiles.add(batch)
        models.add(batch.model)
        if batch.is_found and _is_wanted(batch, dag=dag, state=state, model=model, begin=begin):
            run, task, index = batch.key
            runs.append(run)
            tasks.append(task)
            indexes.append(index)
    pages = max(1, -(-len(runs) // ROWS_A_PAGE))
    number = min(max(1, _whole(page, otherwise=1)), pages)
    shown = slice((number - 1) * ROWS_A_PAGE, number * ROWS_A_PAGE)
    rows = queries.load(session, list(zip(runs[shown], tasks[shown], indexes[shown], strict=True)))
    return _page(
        visit.request,
        "list.html",
        batches=[read_batch(row, now=now.timestamp()) for row in rows],
        total=len(runs),
        first=(number - 1) * ROWS_A_PAGE + 1,
        number=number,
        pages=pages,
        tiles=tiles,
        dags=dags,
        models=sorted(models - {""}),
        states=(_CHOICE_ACTIVE, *(each.value for each in State)),
        periods=PERIODS,
        chosen={"dag": dag, "state": state, "model": model, "days": days, "q": q},
        refresh=REFRESH_SECONDS if tiles.active else None,
    )


def _is_wanted(batch: Short, *, dag: str, state: str, model: str, begin: datetime | None) -> bool:
    if (dag and batch.dag_id != dag) or (model and batch.model != model):
        return False
    if state and not (batch.state.is_active if state == _CHOICE_ACTIVE else batch.state.value == state):
        return False
    if begin is None or batch.state.is_active:
        return True
    return any(moment >= begin for moment in (batch.began, batch.ended) if moment is not None)


@app.get("/batch", response_class=HTMLResponse)
def show_batch(
    *,
    request: Request,
    dag_id: ReadableDag,
    session: SessionDep,
    run_id: str = "",
    task_id: str = "",
    map_index: str = "",
) -> HTMLResponse:
    """Return the page of one batch. For a task that is not mapped, Airflow does not fill in ``{MAP_INDEX}``."""
    index = _whole(map_index, otherwise=-1)
    place = Place(dag_id, run_id, task_id, index)
    row = queries.find(session, place)
    if row is None:
        raise HTTPException(404, "This task has not begun with a batch yet, or Airflow has cleared what it wrote.")
    batch = read_batch(row, now=datetime.now(tz=timezone.utc).timestamp())
    samples = [each for each in batch.progress.samples if batch.total is None or each.done <= batch.total]
    return _page(
        request,
        "batch.html",
        batch=batch,
        chart=line_chart(samples, batch.total),
        mapped=queries.count_mapped(session, place) if index >= 0 else 1,
        refresh=REFRESH_SECONDS if batch.state.is_active else None,
    )


@app.get("/cost", response_class=HTMLResponse)
def show_cost(
    *,
    visit: AnyVisit,
    days: str = "30",
    dag: str = "",
    model: str = "",
    by: str = "model",
) -> HTMLResponse:
    """Return the page with the costs of batches by day, Dag and model."""
    now, dags = datetime.now(tz=timezone.utc), visit.dags()
    period = int(days) if days in map(str, COST_DAYS) else 30
    by = "dag" if by == "dag" else "model"
    scan = queries.scan(visit.session, queries.Scan(dags, first_moment(now, period), costs=True))
    everything = add_up(map(Short, scan), now=now, days=period)
    costs = everything.only(dag=dag, model=model)
    newest = costs.newest()
    return _page(
        visit.request,
        "cost.html",
        costs=costs,
        dearest=costs.dearest(),
        newest=newest[:MOST_COST_ROWS],
        left_out=max(0, len(newest) - MOST_COST_ROWS),
        chart=column_chart(costs.days, costs.series(by)),
        dags=dags,
        models=everything.models,
        cost_days=COST_DAYS,
        chosen={"dag": dag, "model": model, "days": str(period), "by": by},
        refresh=None,
    )


def _whole(text: str, *, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else otherwise


def _base(request: Request) -> str:
    """Return the path under which this Airflow is served; empty at the root of its host."""
    root: str = request.scope.get("root_path", "")
    return root.removesuffix(MOUNT)


def _page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    base = _base(request)
    values.setdefault("refresh", None)
    return HTMLResponse(
        render(template, base=base, home=f"{base}{MOUNT}", version=__version__, **values),
        status_code=status,
    )
