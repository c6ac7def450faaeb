"""`perimetry convert`: dictionaries of other tools."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import Json, emit, note

if TYPE_CHECKING:
    from perimetry.sae.formats.convert import Converted

__all__ = ["convert"]


def convert(
    source: Annotated[Path, Parameter(name="IN", help="Folder or file of a dictionary of another tool.")],
    out: Annotated[Path, Parameter(name="OUT", help="Folder to write to.")],
    /,
    *,
    certify: Annotated[
        bool,
        Parameter(negative="", help="Hold the result against the source's own formulas; keep a certificate beside it."),
    ] = False,
    activations: Annotated[
        Path | None, Parameter(help="Store of real activations at the dictionary's place, for the certificate.")
    ] = None,
    family: Annotated[
        str | None, Parameter(name="--format", help="Format of IN; default: found from its files.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            negative="",
            help="KEY=VALUE that the files do not say, or say wrongly; it enters the certificate.",
        ),
    ] = None,
    unsafe_pickle: Annotated[
        bool,
        Parameter(
            name=["--unsafe-pickle", "--allow-pickle"],
            negative="",
            help="Open pickle files, tensors only, in a limited process of their own.",
        ),
    ] = False,
    native: Annotated[
        bool, Parameter(negative="", help="Write the native format even where the layout of SAELens would do.")
    ] = False,
    json: Json = False,
) -> None:
    """Convert a dictionary of another tool into an SAE of ours, or one of ours for SAELens.

    SAELens, sparsify, dictionary_learning, Gemma Scope, Llama Scope and others are read. What would have to be guessed is an error that
    names the field. A conversion whose certificate fails is not written.
    """
    from perimetry.pipeline.conversion import run_conversion

    made = run_conversion(
        source,
        out,
        family=family,
        overrides=set_ or (),
        unsafe_pickle=unsafe_pickle,
        certified=certify,
        activations=activations,
        native=native,
    )
    emit(_document(made), json, lambda: _say(made))


def _document(made: "Converted") -> dict[str, Any]:
    return {
        "path": str(made.path),
        "digest": made.digest,
        "architecture": made.sae.architecture,
        "d_model": made.sae.d_model,
        "d_sae": made.sae.d_sae,
        "info": made.info.model_dump(mode="json"),
        "warnings": list(made.warnings),
        "certificate": made.certificate,
    }


def _say(made: "Converted") -> None:
    """For a person: what it is, what was noted, what the certificate says."""
    certificate, origin = made.certificate, made.info.origin
    note(
        f"{made.path}: {made.sae.architecture}, width {made.sae.d_model} to {made.sae.d_sae} latents, sha256 "
        f"{made.digest[:16]}"
    )
    for line in (*(() if origin is None else origin.notes), *made.warnings):
        note(f"  {line}")
    if certificate is None:
        note("  not certified: add --certify, and --activations STORE to be able to use it for more than inspection")
    else:
        note(f"  certificate: {certificate['verdict']}" + "".join(f"; {reason}" for reason in certificate["reasons"]))
