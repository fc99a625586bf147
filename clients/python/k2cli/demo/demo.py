"""Implements `k2 demo`: performs the demonstration, and what belongs to it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from k2cli import console, options
from k2cli.demo import demo_card, materials, screenshots
from k2cli.demo.agenda import SECTIONS, slots
from k2cli.demo.drill import drill as drilled
from k2cli.demo.presenter import RUN_FILE, Presenter, draw_checklist, keep, now_text, summary
from k2cli.demo.stage import fresh_start
from k2cli.demo.stage.page_addresses import FAILED, NO_PART, looked_at
from k2cli.demo.stage.readiness import checklist, decision, read_state, state_of
from k2cli.operate.running_stack import RunningStack, address_of, based, described_at
from k2client.errors import NotFound

_CARD = Path("docs/demo")
_PICTURES = Path("docs/images")


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="In 5 minutes instead of 12.")
@click.option(
    "--section", type=click.IntRange(1, len(SECTIONS)), metavar="N", help="Only this section, 1-7."
)
@click.option("--no-wait", is_flag=True, help="Do not hold each part until its time is over.")
@click.option("--start", is_flag=True, help="First start a simulated stack where none runs.")
@options.data_dir
@click.pass_context
def demo(
    context: click.Context,
    quick: bool,
    section: int | None,
    no_wait: bool,
    start: bool,
    data_dir: Path | None,
) -> None:
    """Perform the demonstration: seven sections, every claim measured at that moment.

    Enter goes on to the next part before its time. The exit code is 1 only when something could not
    be measured; a missed target is shown as missed.
    """
    if context.invoked_subcommand is not None:
        return
    directory = options.directory_of(data_dir)
    if start:
        fresh_start.ensure(directory, console.say)
    with RunningStack.open(data_dir) as shown:
        draw_checklist(checklist(read_state(shown)))
        planned = slots(quick=quick, section=section)
        done = Presenter(shown, quick=quick, wait=not no_wait).perform(planned)
        for line in summary(done, waited=not no_wait, whole=section is None):
            console.echo(line)
        if section is None:
            keep(done, shown.directory, shown.source)
    context.exit(1 if done.failures else 0)


@demo.command()
@options.common
@click.pass_context
def check(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Compute the checklist: GO (exit code 0) or NO-GO (1)."""
    items = checklist(state_of(data_dir))
    if as_json:
        console.echo_json({"decision": decision(items), "items": items})
    else:
        draw_checklist(items)
    context.exit(0 if decision(items) == "GO" else 1)


@demo.command()
@options.common
@click.pass_context
def health(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Look at each address: healthy, failed, or not part of this stack."""
    described = described_at(data_dir)
    found = looked_at(described)
    processes = [(str(each.get("name")), str(each.get("state"))) for each in described.processes]
    wrong = [name for name, state in processes if state != "SERVING"]
    if as_json:
        console.echo_json({"processes": dict(processes), "addresses": found})
    else:
        if not described.running:
            console.say(f"no K2 runs in {described.directory}")
        for name, state in processes:
            console.echo(f"{name:<13} {'healthy' if state == 'SERVING' else f'failed: {state}'}")
        for page in found:
            more = f": {page.message}" if page.message and page.state != NO_PART else ""
            console.echo(f"{page.name:<13} {page.state}  {page.url}{more}")
    failed = wrong or any(page.state == FAILED for page in found)
    answered = described.running or any(page.state != NO_PART for page in found)
    context.exit(1 if failed or not answered else 0)


@demo.command()
@options.data_dir
@click.pass_context
def export(context: click.Context, data_dir: Path | None) -> None:
    """Make backup materials from a real run: text, figures, answers, notebooks, pictures."""
    with RunningStack.open(data_dir) as shown:
        folder, done = materials.export(shown, now_text(), console.say)
        keep(done, shown.directory, shown.source)
    console.echo(str(folder))
    context.exit(1 if done.failures else 0)


@demo.command()
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=_CARD, show_default=True
)
@options.data_dir
def card(out: Path, data_dir: Path | None) -> None:
    """Render the presenter's pages, with the figures of the last demonstration of this stack."""
    path = options.directory_of(data_dir).joinpath(*RUN_FILE)
    try:
        run = json.loads(path.read_text())
    except FileNotFoundError as error:
        message = f"no demonstration was performed on this stack: there is no {path}; run `k2 demo`"
        raise NotFound("STACK_NOT_RUNNING", message) from error
    for written in demo_card.write(run, out):
        console.echo(str(written))


@demo.command("screenshots")
@click.option("--url", help="Of the status page, instead of that of the stack.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=_PICTURES, show_default=True
)
@options.data_dir
def pictures(url: str | None, out: Path, data_dir: Path | None) -> None:
    """Take pictures of the status page, in both themes and on a phone."""
    described = described_at(data_dir)
    address = url or address_of(described, "edge", "http")
    if address is None:
        raise NotFound("STACK_NOT_RUNNING", f"no edge runs in {described.directory}: k2 up -d")
    for written in screenshots.take(based(address), out):
        console.echo(str(written))


@demo.command()
@options.data_dir
@click.pass_context
def drill(context: click.Context, data_dir: Path | None) -> None:
    """Try each contingency once on a simulated stack, which is reset on the way."""
    done = drilled(options.directory_of(data_dir), console.say)
    for each in done:
        console.echo(f"{'ok    ' if each.ok else 'FAILED'}  {each.what}: {each.found}")
    context.exit(0 if all(each.ok for each in done) else 1)
