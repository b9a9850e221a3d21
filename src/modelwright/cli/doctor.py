"""`modelwright doctor`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright.cli.console import human_bytes, print_json, result_console

if TYPE_CHECKING:
    from rich.console import Console


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show what works on this machine: packages, processor, devices, cache. Exit code 1: a package is missing."""
    from modelwright.core.machine import describe_machine

    found = describe_machine()
    if json:
        print_json(found)
    else:
        _show(result_console(), found)
    if None in found["packages"].values():
        raise typer.Exit(1)


def _show(console: "Console", found: dict[str, Any]) -> None:
    from modelwright.core.machine import CPU_FEATURES

    console.print(f"[bold]modelwright {found['modelwright']}[/], Python {found['python']}, {found['platform']}")
    console.print("[bold]packages[/]")
    for name, version in found["packages"].items():
        _row(console, version is not None, name, version or "missing: reinstall modelwright")
    for name, entry in found["optional"].items():
        hint = f"for {entry['enables']}: pip install 'modelwright[{entry['extra']}]'"
        _row(console, entry["version"] is not None, name, f"{entry['version']} ({entry['enables']})", hint)
    cpu = found["cpu"]
    console.print(
        f"[bold]processor[/] {cpu['name']}, {cpu['usable_cores']} of {cpu['cores']} cores usable", markup=True
    )
    console.print(f"  torch: {cpu['torch_threads']} threads, {cpu['torch_uses']}")
    for name, there in (cpu["features"] or {}).items():
        _row(console, there, name, CPU_FEATURES[name], CPU_FEATURES[name])
    if cpu["features"] is None:
        console.print("  this system does not say which instructions the processor has")
    console.print("[bold]devices[/]")
    for device in found["devices"]:
        size = "" if device["bytes"] is None else f", {human_bytes(device['bytes'])}"
        console.print(f"  {device['device']}: {device['name']}{size}{', bfloat16' if device['bfloat16'] else ''}")
    if not found["devices"]:
        console.print("  no GPU that torch can use")
    _show_hub(console, found["hub"])


def _show_hub(console: "Console", hub: dict[str, Any]) -> None:
    state = "offline (HF_HUB_OFFLINE)" if hub["offline"] else f"online ({hub['endpoint']})"
    token = "with an access token" if hub["token"] else "without an access token"
    console.print(f"[bold]hub[/] {state}, {token}")
    note = "" if hub["writable"] else ", which cannot be written: set HF_HOME to a folder that can"
    console.print(f"  {hub['cached_models']} models in {hub['cache']}{note}", markup=False)


def _row(console: "Console", there: bool, name: str, text: str, otherwise: str | None = None) -> None:
    """Print a line with a mark: there, or not there and what that means."""
    mark, colour = ("+", "green") if there else ("-", "yellow")
    console.print(f"  [{colour}]{mark}[/] {name:14}", end=" ")
    console.print(text if there or otherwise is None else otherwise, markup=False)
