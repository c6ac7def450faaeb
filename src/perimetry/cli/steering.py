"""`perimetry eval steering`: does a vector steer, or does it only damage?"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import Device, DtypeFlag, Json, Out, Quiet, Threads, command_line, emit_results, note

__all__ = ["steering"]


def steering(
    pairs: Annotated[
        Path, Parameter(help="Lines of JSON with prompt, positive and negative: what is wanted, and its opposite.")
    ],
    *,
    model: Annotated[str, Parameter(help="Asset name, local folder or hub id.")] = "smollm2-135m-instruct",
    layer: Annotated[
        int | None,
        Parameter(help="Block after which the vector is added; default: that of --sae, else the middle one."),
    ] = None,
    vector: Annotated[Path | None, Parameter(help="A .safetensors that holds one vector.")] = None,
    sae: Annotated[Path | None, Parameter(help="A dictionary, of which a latent's direction is added.")] = None,
    latent: Annotated[int | None, Parameter(help="Which latent of --sae.")] = None,
    contrast: Annotated[
        Path | None,
        Parameter(
            help="More such pairs: the mean difference of activations on them is added (contrastive activation addition)."
        ),
    ] = None,
    multiplier: Annotated[
        list[float] | None, Parameter(help="How many times it is added; several flags give several.")
    ] = None,
    random: Annotated[int, Parameter(help="Vectors of random direction and the same length that stand beside it.")] = 5,
    chat: Annotated[bool, Parameter(help="Put prompts as a user's turn of the chat template.")] = False,
    seed: Annotated[int, Parameter(help="Of random vectors and of the bootstrap.")] = 0,
    out: Out = Path("runs/steering"),
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a steering vector by the likelihoods of open-ended continuations, beside random vectors and none.

    Give one of --vector, --sae with --latent, or --contrast.
    """
    from perimetry.activations.model import load_language_model
    from perimetry.errors import UsageError
    from perimetry.pipeline.steering import Chosen, SteeringPlan, choose_vector, read_pairs, run_steering
    from perimetry.pipeline.steering_table import show_steering
    from perimetry.runtime import RuntimeConfig, start

    if sum(x is not None for x in (vector, sae, contrast)) != 1 or (sae is None) != (latent is None):
        raise UsageError("give one of --vector, --sae together with --latent, and --contrast")
    tested = read_pairs(pairs)
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    lm = load_language_model(model, runtime)
    place, found, origin = choose_vector(lm, Chosen(vector, sae, latent, contrast), layer, chat=chat)
    plan = SteeringPlan(place, found, origin, tuple(multiplier or (-2.0, -1.0, 1.0, 2.0)), random, seed, chat)
    flags = {"--model": model, "--layer": layer, "--vector": vector, "--sae": sae, "--latent": latent}
    words = ["perimetry", "eval", "steering", pairs, *(w for m in multiplier or () for w in ("--multiplier", m))]
    words += ["--chat"] if chat else []
    command = command_line(words, flags | {"--contrast": contrast, "--random": random, "--seed": seed}, out)
    results = run_steering(lm, tested, plan, out, command=command, say=(lambda _: None) if quiet else note)
    emit_results(results, json, show_steering, out)
