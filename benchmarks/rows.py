"""Rows in and out: time and memory of landing results and of staging and uploading input, against the plainest ways.

    python benchmarks/rows.py [--rows 1000000] [--folder DIR] [--write]

Each line of a table is the best of three processes of its own, so that its memory is its own; the lines take turns.
Ratios are taken within one run. ``--write`` puts the table into the README beside this file. Nothing leaves the
machine: files are served by a small server here, and uploads go to the emulator.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROUNDS = 3
PICTURE_BYTES = 2_000_000
"""Base64 of one picture; what image models make at 1K has one to four million bytes."""
TEXT = "The quick brown fox jumps over the lazy dog and looks back once more. " * 10


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000, help="rows of the largest file (1 KB each)")
    options.add_argument("--folder", type=Path, help="where the files go; a temporary folder when absent")
    options.add_argument("--write", action="store_true", help="put the table into README.md")
    options.add_argument("--vertex", action="store_true", help="only the part on Vertex AI")
    options.add_argument("--pictures", action="store_true", help="only the part on pictures")
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(child(*given.child)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        part = measure_vertex if given.vertex else measure_pictures if given.pictures else measure
        table = part(Path(folder), given.rows)
    print(table)
    if given.write:
        readme = Path(__file__).with_name("README.md")
        text = readme.read_text() if readme.exists() else "# Benchmarks\n\n<!-- rows -->\n<!-- /rows -->\n"
        made = re.sub(
            r"(<!-- rows -->\n).*(<!-- /rows -->)", lambda found: found[1] + table + found[2], text, flags=re.DOTALL
        )
        readme.write_text(made)


HEAD = "| | seconds | CPU | MB/s | MiB above idle | ratio | of CPU |\n|---|---:|---:|---:|---:|---:|---:|\n"


class Line(NamedTuple):
    """One line of a table: what is done, and the lines before it that its ratio is taken to."""

    words: str
    task: str
    path: Path
    where: str = ""
    base: tuple[int, ...] = ()


def measured(lines: Sequence[Line], rows: int) -> str:
    """Do everything in turn, three rounds of it, and give the table: a machine that slows down slows down all lines."""
    rounds = [[ask(line.task, f"{line.path}={line.where}", rows) for line in lines] for _ in range(ROUNDS)]
    best = [best_of(found) for found in zip(*rounds, strict=True)]
    told = []
    for line, made in zip(lines, best, strict=True):
        ratios = ["", ""]
        if line.base:
            ratios = [f"{made[name] / sum(best[base][name] for base in line.base):.2f}" for name in ("seconds", "cpu")]
        speed = line.path.stat().st_size / 1e6 / made["seconds"]
        numbers = f"{made['seconds']:.1f} | {made['cpu']:.1f} | {speed:.0f} | {made['peak']:.0f}"
        told.append(f"| {line.words} | {numbers} | {' | '.join(ratios)} |")
        print(told[-1], file=sys.stderr)
    return HEAD + "\n".join(told)


def measure(folder: Path, rows: int) -> str:
    print(f"making files of {rows} rows ...", file=sys.stderr)
    parts = [
        measure_results(folder, rows),
        measure_input(folder, rows // 2),
        measure_growth(folder, rows),
        measure_vertex(folder, rows),
        measure_pictures(folder, rows),
    ]
    return "\n" + "".join(f"{part}\n" for part in parts)


def measure_results(folder: Path, rows: int) -> str:
    results, shuffled = folder / "results.jsonl", folder / "shuffled.jsonl"
    order = list(range(rows))
    write_results(results, order)
    random.Random(1).shuffle(order)
    write_results(shuffled, order)
    server = serve(folder)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    lines = [
        Line("`json.loads` of every line, from disk (1)", "loads", results),
        Line("bare `requests` download to disk (2)", "download", results, address),
        Line("landed, from disk, in order; ratio to (1)", "land", results, base=(0,)),
        Line("landed, from disk, shuffled; ratio to (1)", "land", shuffled, base=(0,)),
        Line("landed over HTTP, in order; ratio to (1) + (2)", "land", results, address, (0, 1)),
        Line("landed over HTTP, shuffled; ratio to (1) + (2)", "land", shuffled, address, (0, 1)),
        Line("whole file in memory, parsed, written; ratio to (1) + (2)", "whole", results, address, (0, 1)),
    ]
    table = measured(lines, rows)
    server.shutdown()
    return f"(a) A result file of {rows:,} rows, {results.stat().st_size / 1e6:.0f} MB.\n\n{table}\n"


def measure_input(folder: Path, rows: int) -> str:
    path = folder / "input.jsonl"
    write_input(path, rows)
    emulator, address = start_emulator()
    lines = [
        Line("`json.loads` of every line (3)", "loads", path),
        Line("uploaded to the emulator (4)", "upload", path, address),
        Line("validated, fingerprinted, written for upload; ratio to (3)", "stage", path, base=(0,)),
        Line("all of it; ratio to (3) + (4)", "stage", path, address, (0, 1)),
    ]
    try:
        table = measured(lines, rows)
    finally:
        emulator.terminate()
        emulator.wait()
    return f"(b) An input of {rows:,} rows, {path.stat().st_size / 1e6:.0f} MB.\n\n{table}\n"


def measure_growth(folder: Path, rows: int) -> str:
    part = folder / "part.jsonl"
    lines = []
    for count in (rows // 100, rows // 10, rows):
        write_input(part, count)
        staged = best_of([ask("stage", f"{part}=", count) for _ in range(ROUNDS)])
        write_results(part, list(range(count)))
        landed = best_of([ask("land", f"{part}=", count) for _ in range(ROUNDS)])
        told = [f"{made['cpu'] / count * 1e6:.1f} | {made['peak']:.0f}" for made in (staged, landed)]
        lines.append(f"| {count:,} | {' | '.join(told)} |")
        print(lines[-1], file=sys.stderr)
    head = "| rows | staged: µs of CPU a row | MiB | landed: µs of CPU a row | MiB |\n|---:|---:|---:|---:|---:|\n"
    return "(c) Growth.\n\n" + head + "\n".join(lines) + "\n"


def measure_vertex(folder: Path, rows: int) -> str:
    """The answers of Vertex AI lie in objects, in any order, each with its request beside it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from emulator.storage_server import storage_server

    path = folder / "predictions.jsonl"
    order = list(range(rows))
    random.Random(1).shuffle(order)
    write_results(path, order, vertex=True)
    with storage_server("bench") as address:
        with vertex_client(address) as client:
            client.storage.upload(path, f"gs://bench/{path.name}")
        lines = [
            Line("`json.loads` of every line, from disk (5)", "loads", path),
            Line("bare `gcsfs` download to disk (6)", "gcsfs", path, address),
            Line("landed, from disk; ratio to (5)", "vertex", path, base=(0,)),
            Line("landed from gs://; ratio to (5) + (6)", "vertex", path, address, (0, 1)),
        ]
        table = measured(lines, rows)
    return f"(d) Vertex AI: an object of {rows:,} rows, {path.stat().st_size / 1e6:.0f} MB, shuffled.\n\n{table}\n"


def measure_pictures(folder: Path, rows: int) -> str:
    """Base64 of pictures, a kilobyte for each row of text: 1 GB for a million."""
    path = folder / "pictures.jsonl"
    count = max(1, rows * 1000 // PICTURE_BYTES)
    write_pictures(path, count)
    lines = [
        Line("`json.loads` of every line, from disk (7)", "loads", path),
        Line("landed from disk, each picture a file; ratio to (7)", "pictures", path, base=(0,)),
    ]
    table = measured(lines, count)
    return f"(e) {count:,} pictures in {path.stat().st_size / 1e6:.0f} MB of base64.\n\n{table}\n"


def write_pictures(path: Path, count: int) -> None:
    text = base64.b64encode(random.Random(1).randbytes(PICTURE_BYTES * 3 // 4)).decode()
    with path.open("w", buffering=1 << 20) as handle:
        for row in range(count):
            # Each is another picture, as far as a file system can tell.
            data = f"{row:08d}{text[8:]}"
            part = {"inlineData": {"mimeType": "image/png", "data": data}}
            response = {
                "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {"promptTokenCount": 6, "candidatesTokenCount": 1120, "totalTokenCount": 1126},
            }
            handle.write(json.dumps({"key": f"r{row}-order-{row}", "response": response}) + "\n")


def vertex_client(address: str) -> Any:
    from airflow_provider_gemini_batch.api.client import BatchClient

    return BatchClient.for_vertex("bench", credentials=object(), storage_endpoint=address)


def ask(task: str, what: str, count: int) -> dict[str, float]:
    """Do it in a process of its own."""
    command = [sys.executable, __file__, "--child", task, what, str(count)]
    made: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return made


def best_of(made: Sequence[dict[str, float]]) -> dict[str, float]:
    """The best of several processes, since other work on the machine only ever makes one slower; the most memory."""
    best = {name: min(one[name] for one in made) for name in ("seconds", "cpu")}
    return {**best, "peak": max(one["peak"] for one in made)}


def child(task: str, what: str, count: str) -> dict[str, float]:
    path, _, address = what.partition("=")
    work = TASKS[task](Path(path), int(count), address)
    idle = memory_mib("VmRSS")
    begun, begun_cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak": max(0.0, memory_mib("VmHWM") - idle),
    }


def memory_mib(name: str) -> float:
    """A line of the process' status; unlike ``ru_maxrss`` it knows nothing of the parent."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def task_loads(path: Path, count: int, _: str) -> Any:
    def work() -> None:
        seen = 0
        with path.open("rb") as handle:
            for line in handle:
                json.loads(line)
                seen += 1
        assert seen == count

    return work


def task_download(path: Path, _: int, address: str) -> Any:
    import requests

    def work() -> None:
        url = f"{address}/v1beta/files/{path.stem}:download?alt=media"
        with requests.get(url, stream=True, timeout=60) as answer, path.with_suffix(".copy").open("wb") as target:
            for chunk in answer.iter_content(1 << 20):
                target.write(chunk)

    return work


def task_whole(path: Path, count: int, address: str) -> Any:
    import requests

    def work() -> None:
        content = requests.get(f"{address}/v1beta/files/{path.stem}:download?alt=media", timeout=600).content
        rows = [json.loads(line) for line in content.decode().splitlines()]
        with path.with_suffix(".copy").open("w") as target:
            target.writelines(json.dumps(row) + "\n" for row in rows)
        assert len(rows) == count

    return work


def task_gcsfs(path: Path, _: int, address: str) -> Any:
    from gcsfs.core import GCSFileSystem

    store = GCSFileSystem(token="anon", endpoint_url=address)  # noqa: S106
    return lambda: store.get_file(f"bench/{path.name}", str(path.with_suffix(".copy")))


def task_vertex(path: Path, count: int, address: str) -> Any:
    from airflow_provider_gemini_batch.api.responses.reading import parse_vertex_line

    if not address:
        return landing(path, count, lambda: local_pieces(path), parse_vertex_line)
    client = vertex_client(address)
    assert client.storage.filesystem is not None
    return landing(path, count, lambda: client.storage.iter_bytes(f"gs://bench/{path.name}"), parse_vertex_line)


def task_pictures(path: Path, count: int, _: str) -> Any:
    from airflow_provider_gemini_batch.api.responses.reading import parse_result_line

    return landing(path, count, lambda: local_pieces(path), parse_result_line)


def task_land(path: Path, count: int, address: str) -> Any:
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.responses.reading import parse_result_line

    def downloaded() -> Iterator[bytes]:
        with BatchClient.for_gemini("key", base_url=address) as client:
            yield from client.iter_download(f"files/{path.stem}")

    return landing(path, count, downloaded if address else lambda: local_pieces(path), parse_result_line)


def local_pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        yield from iter(lambda: handle.read(1 << 20), b"")


def landing(
    path: Path, count: int, pieces: Callable[[], Iterable[bytes]], parse: Callable[[bytes | str, int], Any]
) -> Any:
    """Give the work of landing answers that come in pieces."""
    from airflow_provider_gemini_batch.api.models import JobKind
    from airflow_provider_gemini_batch.api.responses.lines import result_rows
    from airflow_provider_gemini_batch.api.responses.reading import read_lines
    from airflow_provider_gemini_batch.rows.delivery import Origin, deliver, target_of
    from airflow_provider_gemini_batch.rows.files import LocalFiles
    from airflow_provider_gemini_batch.rows.landing import LandingSpec, ResponseSource
    from airflow_provider_gemini_batch.rows.media import MediaFolder

    def answers() -> Any:
        return read_lines(result_rows(pieces()), parse)

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            media = MediaFolder(f"{folder}/media", LocalFiles())
            summary, _ = deliver(
                target_of(str(path.with_suffix(".landed.jsonl"))),
                LocalFiles(),
                [ResponseSource(answers, range(count))],
                LandingSpec(kind=JobKind.GENERATION, rows=count, media=media),
                Origin(task="t", run="r", job_names=("batches/1",), fingerprint="f"),
                workdir=Path(folder),
            )
        assert summary.counts == {"total": count, "succeeded": count, "failed": 0}

    return work


def task_stage(path: Path, count: int, address: str) -> Any:
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import Service
    from airflow_provider_gemini_batch.rows.input_spec import InputSpec
    from airflow_provider_gemini_batch.rows.sending import ShardReader
    from airflow_provider_gemini_batch.rows.stage import stage

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            spec = InputSpec(service=Service.GEMINI, model="gemini-2.5-flash", path=str(path))
            staged = stage(spec, Path(folder))
            assert staged.layout.rows == count
            if address:
                with BatchClient.for_gemini("key", base_url=address) as client:
                    reader = ShardReader(spec, staged.layout, Path(folder), staged.files)
                    for shard in staged.layout.shards:
                        client.upload_file(reader.shard(shard.index).path)

    return work


def task_upload(path: Path, _: int, address: str) -> Any:
    from airflow_provider_gemini_batch.api.client import BatchClient

    def work() -> None:
        with BatchClient.for_gemini("key", base_url=address) as client:
            client.upload_file(path)

    return work


TASKS = {
    "loads": task_loads,
    "download": task_download,
    "whole": task_whole,
    "land": task_land,
    "pictures": task_pictures,
    "gcsfs": task_gcsfs,
    "vertex": task_vertex,
    "stage": task_stage,
    "upload": task_upload,
}


def write_results(path: Path, order: list[int], *, vertex: bool = False) -> None:
    counts = {"promptTokenCount": 6, "candidatesTokenCount": 180, "totalTokenCount": 186}
    with path.open("w", buffering=1 << 20) as handle:
        for row in order:
            content = {"role": "model", "parts": [{"text": f"{TEXT}{row}"}]}
            response = {
                "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {**counts, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 6}]},
                "modelVersion": "gemini-2.5-flash",
                "responseId": f"aB3dE5fG7hI{row}",
            }
            key = f"r{row}-order-{row}"
            item: dict[str, Any] = {"key": key, "response": response}
            if vertex:
                part = {"fileData": None, "inlineData": None, "text": f"Tell me of order {row}."}
                item = {
                    "status": "",
                    "processed_time": "2026-09-02T20:09:11.123+00:00",
                    "request": {"contents": [{"role": "user", "parts": [part]}]},
                    "response": response,
                    "custom_id": key,
                }
            handle.write(json.dumps(item) + "\n")


def write_input(path: Path, rows: int) -> None:
    with path.open("w", buffering=1 << 20) as handle:
        for row in range(rows):
            request = {
                "contents": [{"role": "user", "parts": [{"text": f"{TEXT}{TEXT[:200]}{row}"}]}],
                "generationConfig": {"temperature": 0.1, "maxOutputTokens": 256},
            }
            handle.write(json.dumps({"key": f"order-{row}", "request": request}) + "\n")


def serve(folder: Path) -> ThreadingHTTPServer:
    """Serve the files of a folder as the service serves results."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2].partition(":download")[0] + ".jsonl"
            with (folder / name).open("rb") as handle:
                self.send_response(200)
                self.send_header("Content-Length", str((folder / name).stat().st_size))
                self.send_header("Content-Type", "application/jsonl")
                self.end_headers()
                self.wfile.flush()
                self.connection.sendfile(handle)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def start_emulator() -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "airflow_provider_gemini_batch.emulator", "--port", "0"]
    emulator = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert emulator.stdout is not None
    for line in emulator.stdout:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            threading.Thread(target=emulator.stdout.read, daemon=True).start()
            return emulator, found[0]
    raise SystemExit("the emulator did not start")


if __name__ == "__main__":
    main()
