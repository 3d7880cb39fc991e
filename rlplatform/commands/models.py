"""`rlplatform models`: publish policies and manage their versions."""

import typer

app = typer.Typer(help="Publish policies, and manage models, versions and aliases.", no_args_is_help=True)
