"""``linnix models``: from a registered model to a serving endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnix_core import LinnixError, printable
from linnix_plugin_models.display import (
    amount,
    json_option,
    print_json,
    progress_bar,
    show_pairs,
    show_table,
    stage_bar,
)
from linnix_plugin_models.files import Asked, Files, file_group, pass_files
from linnix_plugin_models.registering import register_path, say_registered
from linnix_plugin_models.registry import Artifact, Model, ModelRegistry, backend_name, now

if TYPE_CHECKING:
    from linnix_plugin_models.registry import Wanted
    from linnix_plugin_models.serving import Deployers, Looked

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


command = file_group("models", "Register, pull, convert, deploy and test models.")


# --- looking --------------------------------------------------------------------------


@command.command("list")
@click.option("-r", "--role", help="Only this role.")
@click.option("-l", "--location", help="Only what is there.")
@click.option("-b", "--backend", help="Only what is deployed on it.")
@click.option("-t", "--tag", help="Only what has it.")
@json_option
@pass_files
def list_models(
    files: Files,
    role: str | None,
    location: str | None,
    backend: str | None,
    tag: str | None,
    as_json: bool,
) -> None:
    """List the registered models."""
    wanted: Wanted = {"role": role, "location": location, "backend": backend, "tag": tag}
    if as_json:
        for chunk in files.registry.listing(**wanted):
            click.echo(chunk, nl=False)
        return
    models = files.registry.models(**wanted)
    if not models:
        click.echo("No model fits." if any(wanted.values()) else "No models yet.")
        return
    rows = [
        (
            model.model_id,
            str(model["display_name"]),
            str(model["version"]),
            str(model["role"]),
            str(model["base_model"]),
            ", ".join(model.locations) or "-",
            ", ".join(map(str, model["deployed_backends"])) or "-",
        )
        for model in models
    ]
    header = ("MODEL", "NAME", "VERSION", "ROLE", "BASE", "LOCATIONS", "BACKENDS")
    show_table(f"Registered models ({len(models)})", header, rows)


@command.command("info")
@click.argument("model")
@json_option
@pass_files
def info(files: Files, model: str, as_json: bool) -> None:
    """Show everything that is known of MODEL."""
    found = files.registry.get(model)
    if as_json:
        print_json(found.as_dict())
        return
    show_pairs(f"{found['display_name']} ({found.model_id})", _described(found))


def _described(model: Model) -> list[tuple[str, list[tuple[str, str]]]]:
    def named(*keys: str) -> list[tuple[str, str]]:
        return [(key.replace("_", " "), _text(model[key])) for key in keys]

    quality = model["dataset_quality"]
    return [
        ("Model", [*named("version", "role", "group", "base_model", "git_commit", "notes"),
                   ("aliases", ", ".join(model.aliases)), ("tags", _text(model["tags"])),
                   *((f"lineage: {k}", _text(v)) for k, v in model["lineage"].items())]),
        ("Training", named("training_date", "training_duration_minutes", "hardware", "device",
                           "lora_config", "hyperparameters")),
        ("Dataset", [*named("dataset_name", "dataset_path", "train_samples", "val_samples",
                            "test_samples"), *((k, _text(v)) for k, v in quality.items())]),
        ("Metrics", named("final_loss", "best_loss", "eval_loss", "perplexity")),
        ("Locations", [(f"{place} (primary)" if place == model["primary_location"] else place, path)
                       for place, path in model.locations.items()]),
        ("Artifacts", [pair for a in model.artifacts for pair in _artifact(a)]),
        ("Deployments", [(str(d.get("name")), _where_and_how(d)) for d in model.deployments]),
        ("Record", named("created_at", "updated_at")),
    ]  # fmt: skip


def _artifact(artifact: Artifact) -> list[tuple[str, str]]:
    name = f"{artifact.location} {artifact.format} {artifact.quantization or ''}".strip()
    found = f"{artifact.path}  {amount(artifact.size)}  {artifact.digest or 'no digest'}"
    told = ((f"{name}: {key.replace('_', ' ')}", _text(v)) for key, v in artifact.details.items())
    return [(name, found), *told]


def _where_and_how(deployment: dict[str, Any]) -> str:
    said = "{deployer} at {endpoint}, {health} at {checked_at}"
    return said.format_map({**dict.fromkeys(("deployer", "endpoint", "health", "checked_at"), "?"),
                            **deployment})  # fmt: skip


def _text(value: object) -> str:
    if value is None or value in ({}, [], 0):
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}={held}" for key, held in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- registering ----------------------------------------------------------------------


@command.command("register")
@click.argument("path", required=False)
@click.option("--id", "model_id", help="The id; the name of the path unless told.")
@click.option("-n", "--name", "display_name", help="What people call it.")
@click.option("-b", "--base", help="The base model, as owner/name.")
@click.option("-r", "--role", help="What it is for.")
@click.option("-l", "--location", help="Where PATH is: this machine unless told or plain.")
@click.option("--version", help="v1, v2…")
@click.option("--group", help="What it belongs to.")
@click.option("--alias", "aliases", multiple=True, help="Another name; taken from who has it.")
@click.option("-t", "--tag", "tags", multiple=True, help="A word to find it by.")
@click.option("--dataset", help="The name of the dataset.")
@click.option("--parent", help="The model that this one is a next version of.")
@click.option("--adapter-of", help="The model that this adapter belongs to.")
@click.option("--notes", help="Anything.")
@click.option("--hash/--no-hash", "hashes", default=None, help="Note the SHA-256 of every file.")
@click.option("--import", "imported", type=_PATH, help="Take in the models of another registry.")
@json_option
@pass_files
def register(
    files: Files,
    /,
    path: str | None,
    model_id: str | None,
    base: str | None,
    location: str | None,
    parent: str | None,
    adapter_of: str | None,
    dataset: str | None,
    aliases: Sequence[str],
    tags: Sequence[str],
    hashes: bool | None,
    imported: Path | None,
    as_json: bool,
    **known: Any,
) -> None:
    """Register the model at PATH, or add to what is known of it."""
    if (path is None) == (imported is None):
        raise Asked("give a PATH or --import FILE", hint="linnix models register --help")
    if imported is not None:
        ids = files.registry.import_models(imported)
        if as_json:
            print_json({"imported": ids})
        else:
            click.echo(f"{len(ids)} models imported from {printable(str(imported))}")
        return
    lineage = {"parent": parent, "adapter_of": adapter_of, "dataset": dataset}
    model = register_path(
        files,
        str(path),
        location,
        model_id=model_id,
        hashes=hashes,
        base_model=base,
        dataset_name=dataset,
        aliases=list(aliases),
        tags=list(tags),
        lineage={key: value for key, value in lineage.items() if value},
        **known,
    )
    say_registered(model, as_json)


@command.command("delete")
@click.argument("model")
@click.option("--files", "with_files", is_flag=True, help="Its files on this machine too.")
@click.option("--location", help="Forget this place only.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_files
def delete(
    files: Files, model: str, with_files: bool, location: str | None, yes: bool, as_json: bool
) -> None:
    """Take MODEL out of the registry; one that is deployed has to be undeployed before."""
    from linnix_plugin_models.removal import local_files, remove_files

    registry = files.registry
    found = registry.get(model)
    if found.deployments and location is None:
        names = ", ".join(str(d.get("name")) for d in found.deployments)
        raise LinnixError(
            f"{found.model_id} is deployed as {printable(names)}",
            hint=f"linnix models undeploy {found.model_id}",
        )
    paths = local_files(found, files.sync) if with_files else []
    if not yes:
        listed = "".join(f"\n  {printable(str(path))}" for path in paths)
        click.confirm(f"Forget {found.model_id}{f' and remove{listed}' if paths else ''}?",
                      abort=True, err=True)  # fmt: skip
    # The files first: a model without files can be deleted again, files without one are lost.
    remove_files(paths)
    if location is not None:
        registry.update(found.model_id, lambda changed: changed.drop_location(location))
    else:
        registry.delete(found.model_id)
    if as_json:
        print_json({"deleted": found.model_id, "files": [str(path) for path in paths]})
    else:
        click.echo(f"{found.model_id} is forgotten")


# --- bringing and making --------------------------------------------------------------


@command.command("pull")
@click.argument("model")
@click.option("-s", "--source", help="The location to take it from.")
@click.option("-d", "--dest", type=_PATH, help="The folder to put its folder into.")
@click.option("--id", "model_id", help="What to call it; for hf: and https:.")
@click.option("--include", multiple=True, help="Only files like this; for hf:.")
@click.option("--sha256", help="The digest that the file must have; for https:.")
@click.option("-r", "--role", help="What it is for; for hf: and https:.")
@click.option("--allow-pickle", is_flag=True, help="Take files that run code when loaded.")
@click.option("--again", is_flag=True, help="Even if it is here.")
@json_option
@pass_files
def pull(
    files: Files,
    model: str,
    source: str | None,
    dest: Path | None,
    model_id: str | None,
    include: Sequence[str],
    sha256: str | None,
    role: str | None,
    allow_pickle: bool,
    again: bool,
    as_json: bool,
) -> None:
    """Bring MODEL to this machine: an id, hf:OWNER/NAME[/FILE] or https://…"""
    from linnix_plugin_models import pulling

    with progress_bar(model) as progress:
        if model.startswith("hf:") or "://" in model:
            known = {"role": role} if role else {}
            pulled = pulling.pull_from_web(
                files.registry, files.sync, model, model_id=model_id, destination=dest,
                include=include, sha256=sha256, allow_pickle=allow_pickle, progress=progress,
                **known,
            )  # fmt: skip
        else:
            pulled = pulling.pull(
                files.registry, files.sync, model, source=source, destination=dest,
                allow_pickle=allow_pickle, again=again, progress=progress,
            )  # fmt: skip
    if as_json:
        print_json(
            {
                "model_id": pulled.model.model_id,
                "path": str(pulled.path),
                "method": pulled.method,
                "size": pulled.size,
                "left_out": pulled.refused,
            }
        )
        return
    verb = "is here already" if pulled.method == "here" else f"was pulled ({pulled.method})"
    path = printable(str(pulled.path))
    click.echo(f"{pulled.model.model_id} {verb}: {path} ({amount(pulled.size)})")
    if pulled.refused:
        left = ", ".join(printable(name) for name in pulled.refused)
        click.echo(f"left out, because loading it runs code: {left}", err=True)


@command.command("convert")
@click.argument("model")
@click.argument("form", metavar="FORMAT")
@click.option("-q", "--quant", "--quantization", default="Q4_K_M", show_default=True,
              help="How the weights are stored.")  # fmt: skip
@click.option("--again", is_flag=True, help="Even if it is there.")
@json_option
@pass_files
def convert(
    files: Files,
    model: str,
    form: str,
    quant: str,
    again: bool,
    as_json: bool,
) -> None:
    """Make MODEL in another FORMAT, such as gguf."""
    from linnix_plugin_models.conversion import convert as make

    with stage_bar() as progress:
        found = files.registry.get(model)
        made = make(
            files.registry, files.sync, found, form.lower(), quant, again=again, progress=progress
        )
    if as_json:
        print_json({"model_id": found.model_id, **made.as_dict()})
        return
    click.echo(f"{printable(made.path)} ({made.quantization}, {amount(made.size)})")


# --- serving --------------------------------------------------------------------------


_config = click.option("-c", "--config", help="The configuration to read.")


def _deployers(config: str | None) -> Deployers:
    from linnix_plugin_models.serving import Deployers

    return Deployers(config)


@command.command("deploy")
@click.argument("model")
@click.argument("backend")
@click.option("-n", "--name", help="What to serve it as; for halext, the node.")
@click.option("--as", "served", help="What to serve it as, in any case.")
@click.option("-q", "--quant", "--quantization", help="Which of its forms.")
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE",
              help="Told to the deployer.")  # fmt: skip
@_config
@json_option
@pass_files
def deploy(
    files: Files,
    model: str,
    backend: str,
    name: str | None,
    served: str | None,
    quant: str | None,
    options: Sequence[str],
    config: str | None,
    as_json: bool,
) -> None:
    """Serve MODEL on BACKEND: ollama, llama.cpp, vllm, halext…"""
    import attrs

    registry = files.registry
    found = registry.get(model)
    node = None
    if backend_name(backend) == "halext":
        if name is None:
            raise Asked("halext needs --name NODE", hint="a URL, or a name in sync.toml")
        node, name = name, None
    with _deployers(config) as deployers:
        made = deployers.deploy(
            registry, files.sync, found, backend, name=served or name, node=node,
            quantization=quant, options=_options(options),
        )  # fmt: skip
    if as_json:
        print_json(attrs.asdict(made))
        return
    click.echo(f"{printable(made.name)} is served by {made.deployer} at {printable(made.endpoint)}")


def _options(texts: Sequence[str]) -> dict[str, Any]:
    import json

    made: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Asked(f"expected KEY=VALUE, got {printable(text, 80)!r}")
        try:
            made[key] = json.loads(value)
        except ValueError:
            made[key] = value
    return made


@command.command("undeploy")
@click.argument("model")
@click.argument("backend", required=False)
@click.option("--forget", is_flag=True, help="Forget it also where it cannot be stopped.")
@_config
@json_option
@pass_files
def undeploy(
    files: Files,
    model: str,
    backend: str | None,
    forget: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Stop serving MODEL, or the deployment of that name; once gone is not an error."""
    registry = files.registry
    with _deployers(config) as deployers:
        names = _deployed(registry, deployers, model, backend)
        for name in names:
            trouble = deployers.undeploy(registry, name, forget=forget)
            if trouble is not None:
                click.echo(f"{printable(name)} is forgotten, and may go on: {trouble}", err=True)
    if as_json:
        print_json({"undeployed": names})
        return
    click.echo(f"undeployed: {printable(', '.join(names))}" if names else "nothing is deployed")


def _deployed(
    registry: ModelRegistry, deployers: Deployers, model: str, backend: str | None
) -> list[str]:
    """The names of what is deployed of a model, by what either list says."""
    found = registry.get_model(model)
    wanted = backend_name(backend) if backend else None
    by_name = {d.name: d.deployer for d in deployers.store.list()}
    if found is None and model not in by_name:
        registry.get(model)  # which says so
    of_model = {
        d.name: d.deployer
        for d in deployers.store.list()
        if found is not None and d.details.get("model_id") == found.model_id
    }
    for held in found.deployments if found is not None else ():
        of_model[str(held.get("name"))] = str(held.get("deployer"))
    if model in by_name:
        of_model[model] = by_name[model]
    return sorted(name for name, deployer in of_model.items() if wanted in (None, deployer))


@command.command("status")
@click.argument("model", required=False)
@_config
@json_option
@pass_files
def status(files: Files, model: str | None, config: str | None, as_json: bool) -> None:
    """Ask every deployment, or those of MODEL, how it is; exit code 1 if one fails."""
    with _deployers(config) as deployers:
        found = deployers.look(files.registry, model)
    _show_looked(found, as_json)
    if any(looked.health.status == "failed" for looked in found):
        raise SystemExit(1)


def _show_looked(found: Sequence[Looked], as_json: bool) -> None:
    import attrs

    if as_json:
        print_json([attrs.asdict(looked) for looked in found])
        return
    if not found:
        click.echo("nothing is deployed")
        return
    rows = [
        (looked.name, looked.deployer, looked.endpoint, looked.model, looked.health.status,
         looked.health.reason)
        for looked in found
    ]  # fmt: skip
    show_table("Deployments", ("NAME", "BACKEND", "ENDPOINT", "MODEL", "HEALTH", ""), rows)


@command.command("test")
@click.argument("model")
@click.argument("backend", required=False)
@_config
@json_option
@pass_files
def test(files: Files, model: str, backend: str | None, config: str | None, as_json: bool) -> None:
    """Have MODEL answer a question, and check the answer; exit code 1 unless it holds."""
    with _deployers(config) as deployers:
        found = [
            looked
            for looked in deployers.look(files.registry, model)
            if backend is None or looked.deployer == backend_name(backend)
        ]
    if not found:
        raise LinnixError(
            f"{printable(model)} is not deployed on {printable(backend or 'anything')}",
            hint=f"linnix models deploy {printable(model)} {printable(backend or 'BACKEND')}",
        )
    _show_looked(found, as_json)
    if any(looked.health.status != "ok" for looked in found):
        raise SystemExit(1)


@command.command("benchmark")
@click.argument("model")
@click.argument("backend", required=False)
@click.option("-n", "--requests", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--tokens", type=click.IntRange(1, 4096), default=64, show_default=True)
@click.option("--prompt", default="Explain what a process is.", help="What is asked.")
@_config
@json_option
@pass_files
def benchmark(
    files: Files,
    model: str,
    backend: str | None,
    requests: int,
    tokens: int,
    prompt: str,
    config: str | None,
    as_json: bool,
) -> None:
    """Measure latency and tokens per second of a deployed MODEL."""
    import attrs

    from linnix_plugin_models.speed import measure

    registry = files.registry
    with _deployers(config) as deployers:
        names = _deployed(registry, deployers, model, backend)
        held = [deployment for name in names if (deployment := deployers.store.get(name))]
    if not held:
        raise LinnixError(f"{printable(model)} is not deployed", hint="linnix models deploy")
    measured = []
    for deployment in held:
        with progress_bar(deployment.name) as progress:
            figures = measure(deployment, requests, tokens, prompt, progress)
        measured.append({"name": deployment.name, "at": now(), **attrs.asdict(figures)})
    found = registry.get_model(model)
    if found is not None:
        registry.update(
            found.model_id,
            lambda changed: changed.more.update(
                metrics={**changed["metrics"], "benchmarks": measured}
            ),
        )
    if as_json:
        print_json(measured)
        return
    for one in measured:
        click.echo(
            f"{printable(one['name'])}: {one['tokens_per_s']:.1f} tokens/s, "
            f"latency {one['latency_s_median']:.2f} s (median), {one['latency_s_worst']:.2f} s "
            f"(worst) of {one['requests']}"
        )


# --- checking -------------------------------------------------------------------------


@command.command("verify")
@click.argument("models", nargs=-1)
@json_option
@pass_files
def verify(files: Files, models: Sequence[str], as_json: bool) -> None:
    """Read every file of MODELS on this machine again; exit code 1 if one is not as it was."""
    from linnix_plugin_models.verification import verify as check

    registry = files.registry
    found = [registry.get(name) for name in models] if models else registry.models()
    with progress_bar("reading") as progress:
        problems, checked = check(found, progress)
    if as_json:
        print_json({"files": checked, "problems": problems})
    else:
        for problem in problems:
            where = f"{problem['model_id']}: {problem['path']}: {problem['reason']}"
            click.echo(printable(where))
        click.echo(f"{checked} files read, {len(problems)} problems")
    if problems:
        raise SystemExit(1)


@command.command("paths")
@click.argument("path", required=False)
@click.option("-l", "--location", help="Where PATH is.")
@json_option
@pass_files
def paths(files: Files, path: str | None, location: str | None, as_json: bool) -> None:
    """Show where everything is, or what PATH is called by every system."""
    from linnix_plugin_models.overview import overview, spellings

    if path is not None:
        found = spellings(files.sync, path, location)
        if as_json:
            print_json(found)
        else:
            show_pairs(path, [("Spellings", [(k, str(v)) for k, v in found.items()])])
        return
    shown = overview(files.registry, files.sync)
    if as_json:
        print_json(shown)
        return
    groups = [
        (name, [(key, _text(value)) for key, value in group.items()])
        for name, group in shown.items()
        if isinstance(group, dict)
    ]
    show_pairs("Paths and hosts", groups)
