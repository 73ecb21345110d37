"""``linnix anomaly``: how well the detector does on labelled series."""

from __future__ import annotations

import json
from pathlib import Path

import click

from linnix_core import LinnixError, printable

__all__ = ["command"]


class _NothingToScore(LinnixError):
    """Series without a window."""

    exit_code = 2


@click.group("anomaly")
def command() -> None:
    """Score the anomaly detector on labelled series."""


@command.command("score")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(folder: Path, as_json: bool) -> None:
    """Score the detector on the series of DIR as the Numenta benchmark does.

    DIR holds windows.json, which maps "folder/name.csv" to its labelled windows, and the
    CSV files (timestamp,value). 0 is never detecting, 100 perfect; the baseline of the
    benchmark is computed in the same run. Needs no license.
    """
    # Later than the command line needs: the models take a moment to import.
    from linnix_plugin_anomaly.labelled import read_labelled
    from linnix_plugin_anomaly.scoring import score_report

    series, missing = read_labelled(folder)
    for name in missing:
        click.echo(f"not there: {printable(name, 80)}", err=True)
    try:
        report = score_report(series)
    except ValueError as error:
        raise _NothingToScore(str(error), hint="windows.json holds the labels") from None
    if as_json:
        click.echo(json.dumps(report))
        return
    baseline = report["windowed_gaussian"]
    click.echo(f"{'profile':<10}{'anomaly':>9}{'windowed Gaussian':>20}")
    for name in baseline:
        click.echo(f"{name:<10}{report[name]:>9.1f}{baseline[name]:>20.1f}")
    points = sum(len(each.values) for each in series)
    spent = report["microseconds_per_point"]
    click.echo(f"{len(series)} series, {points} points, {spent:.1f} µs a point")
