"""`perimetry train`: from a model and a text to SAEs on disk, all of them from one run of the model."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from perimetry.activations.aligned import AlignedStores
from perimetry.activations.masking import Masking, ReadsMasked
from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.site import Site
from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.activations.text import HasText
from perimetry.activations.versions import PairedVersions, harvest_versions
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.pipeline.bench_suites import not_held_out
from perimetry.pipeline.causal import require_plain_text, rest_of
from perimetry.pipeline.denoising import as_dictionary, denoising_job
from perimetry.pipeline.places import describe_places, options_of_places, sites_of
from perimetry.pipeline.sweep import OPTION, Member, RunConfig, differences, folder_names
from perimetry.pipeline.trained import TrainedSAE
from perimetry.runtime import Runtime
from perimetry.storage import lock, remove_stale, write_json
from perimetry.train import Job, Source, TrainConfig, TrainResult, View, train_jobs, train_many

__all__ = [
    "SWEEP_FILE",
    "SourcePlan",
    "TrainedSAE",
    "TrainingPlan",
    "describe_source",
    "middle_layer",
    "run_sweep",
    "run_training",
    "train_seeds",
]

SWEEP_FILE = "sweep.json"
"""What a run of several SAEs leaves beside their folders."""


class SourcePlan(ReadsMasked):
    """What is trained on, beside the recipe."""

    model: str
    """Asset name, local folder or hub id."""
    text: str
    """Asset name, .jsonl, .txt or folder."""
    context: int = Field(default=128, ge=8)
    """Tokens of one packed row of text."""
    epochs: float = Field(default=1.0, gt=0)
    """Times each harvested token is seen."""
    live: bool = False
    """Train straight from the model, without a store."""
    store: str | None = None
    """Folder of the activation store; None is `store` in the output folder."""


class TrainingPlan(SourcePlan):
    """A source, and SAEs that differ in nothing but their seed."""

    layer: int | None = Field(default=None, ge=0)
    """Block to tap, from 0; None is a little before the middle."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the SAEs, all trained on the same batches."""


class _Opened(NamedTuple):
    """Activations to train on."""

    source: Source
    """Gives rows."""
    columns: dict[Site, tuple[int, int]]
    """First and last column (excluded) of each place in a row."""
    policies: dict[Site, TokenPolicy]
    """Which tokens count there."""
    documents: Sequence[HasText]
    """The text, which a causal loss reads again."""

    def view(self, sites: Sequence[Site]) -> View:
        """The columns of some places."""
        if tuple(sites) == tuple(self.columns):
            return View()
        return View(tuple(self.columns[site] for site in sites))


def middle_layer(lm: LanguageModel, layer: int | None) -> int:
    """The block to tap: the one asked for, else a little before the middle, where features are richest."""
    return layer if layer is not None else max(0, lm.n_layers * 2 // 5)


def describe_source(
    lm: LanguageModel, layer: int, source: ActivationStore | LiveStream, text: str, context: int
) -> dict[str, Any]:
    """What is stored beside an SAE of one block of where its training data came from."""
    return describe_places(lm, [Site(layer)], "one", {Site(layer): source.policy}, text=text, context=context)


def train_seeds(
    recipe: TrainConfig,
    seeds: Sequence[int],
    source: ActivationStore | LiveStream,
    out: Path,
    info: dict[str, Any],
    *,
    progress: bool,
) -> list[TrainResult]:
    """One SAE a seed on the same batches: in `out` when there is one seed, else in `out/seed-N`."""
    configs = [recipe.model_copy(update={"seed": seed}) for seed in seeds]
    folders = [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]
    return train_many(configs, source, folders, progress=progress, model_info=info)


def _require_rows(rows: int, tokens: int, plan: SourcePlan) -> None:
    """Refuse to repeat a text more often than was asked for."""
    if rows * plan.epochs < tokens:
        raise TooFewSamples(
            f"the text {plan.text!r} gives {rows:,} tokens, {plan.epochs:g} time(s) that is less than the {tokens:,} to "
            f"train on; give more text, --tokens {int(rows * plan.epochs)}, or --epochs {-(-tokens // max(rows, 1))}"
        )


def _open(
    plan: SourcePlan, recipe: TrainConfig, lm: LanguageModel, sites: Sequence[Site], out: Path, *, progress: bool
) -> _Opened:
    """The activations at some places, sorted by depth, from one run of the model; `recipe` says which batches."""
    documents = not_held_out(plan.text, progress)
    columns = {site: (n * lm.d_model, (n + 1) * lm.d_model) for n, site in enumerate(sites)}
    if plan.masking is not None and plan.masking.variant != "masked":
        return _open_versions(plan, plan.masking, recipe, lm, sites, documents, out, progress=progress)
    if plan.live:
        config = StreamConfig(context=plan.context, seed=recipe.data_seed, masking=plan.masking)
        stream = LiveStream(lm, sites, documents, config)
        return _Opened(stream, columns, stream.policies, documents)
    # A tenth more than is trained on, so that thresholds and measures come from tokens never trained on.
    wanted = round(recipe.tokens / plan.epochs) + recipe.threshold_tokens
    settings = _harvest(plan, recipe, wanted)
    folder = Path(plan.store) if plan.store is not None else out / "store"
    if len(sites) == 1:
        stores = {sites[0]: harvest(lm, sites[0], documents, folder, settings, progress=progress)}
    else:
        stores = harvest(lm, sites, documents, folder, settings, aligned=True, progress=progress)
    together = AlignedStores([stores[site] for site in sites])
    _require_rows(len(together), recipe.tokens, plan)
    source = together if len(sites) > 1 else stores[sites[0]]
    return _Opened(source, columns, {site: stores[site].policy for site in sites}, documents)


def _harvest(plan: SourcePlan, recipe: TrainConfig, wanted: int) -> HarvestConfig:
    seed, masking = recipe.data_seed, plan.masking
    return HarvestConfig(tokens=wanted, context=plan.context, batch_rows=32, seed=seed, masking=masking)


def _open_versions(
    plan: SourcePlan,
    masking: Masking,
    recipe: TrainConfig,
    lm: LanguageModel,
    sites: Sequence[Site],
    documents: Sequence[HasText],
    out: Path,
    *,
    progress: bool,
) -> _Opened:
    """Masked and clean activations of the same tokens: side by side for `denoising`, in pairs for `consistency`, where `smooth` asks
    for like codes."""
    denoising = masking.variant == "denoising"
    if plan.live or len(sites) != 1:
        raise ConfigError(
            f"variant = {masking.variant!r} with live = {plan.live} and {len(sites)} places; wanted a store and one place"
        )
    if not denoising and not recipe.smooth:
        raise ConfigError(
            "variant = 'consistency' with smooth = 0; wanted smooth > 0, the weight by which codes of masked and clean activations agree"
        )
    wanted = round(recipe.tokens / plan.epochs) + recipe.threshold_tokens
    wanted = wanted if denoising else -(-wanted // 2)
    folder = Path(plan.store) if plan.store is not None else out / "store"
    settings = _harvest(plan, recipe, wanted)
    versions = harvest_versions(lm, sites[0], documents, folder, settings, progress=progress)
    source = versions.beside() if denoising else PairedVersions(versions)
    _require_rows(len(source), recipe.tokens, plan)
    return _Opened(source, {sites[0]: (0, lm.d_model)}, {sites[0]: versions.clean.policy}, documents)


def _job(
    member: Member, folder: Path, opened: _Opened, lm: LanguageModel, plan: SourcePlan, *, widths: Sequence[int]
) -> Job:
    cls = member.config.sae_class
    info = describe_places(lm, member.sites, cls.reads, opened.policies, text=plan.text, context=plan.context)
    info |= {} if plan.masking is None else {"masking": plan.masking.model_dump(mode="json")}
    options = options_of_places(cls, member.config.options, widths)
    config = member.config.model_copy(update={"options": options})
    rest = None
    if config.causal:
        site = member.sites[0]
        text, masking = opened.documents, plan.masking
        rest = rest_of(lm, site, opened.policies[site], text, config, context=plan.context, masking=masking)
    return Job(config, folder, opened.view(member.sites), info, rest)


def _swept(member: Member, found: Mapping[str, Any], members: Sequence[Member]) -> dict[str, Any]:
    """`differences` in the words of the configuration: places as layer, place ..., options as one table."""
    options = {key.removeprefix(OPTION): value for key, value in found.items() if key.startswith(OPTION)}
    plain = {key: value for key, value in found.items() if key != "places" and not key.startswith(OPTION)}
    places = [one.where() for one in members]
    keys = sorted({key for place in places for key in place})
    own = {key: member.where().get(key) for key in keys if any(p.get(key) != places[0].get(key) for p in places)}
    return own | plain | ({"options": options} if options else {})


def run_sweep(
    plan: SourcePlan, runs: Sequence[RunConfig], out: Path, runtime: Runtime, *, progress: bool = False
) -> list[TrainedSAE]:
    """Harvest every place that some SAE needs in one run of the model, and train all of them on the same batches.

    One SAE goes to `out`, of several each to a folder of `out` that is named after what tells it from the others, with
    `sweep.json` beside them. Resumes what a killed call left; finished SAEs are kept.

    Errors: `ConfigError` for two SAEs that are the same, `TooFewSamples` when the text holds too little for the tokens and
    epochs asked for, and those of every step.
    """
    require_plain_text(plan.masking, [run.recipe for run in runs])
    with contextlib.ExitStack() as stack:
        lm = load_language_model(plan.model, runtime, progress=progress)
        middle = middle_layer(lm, None)
        members = [Member(run.recipe, sites_of(run.where, run.architecture, middle)) for run in runs]
        found = differences(members)
        folders = [out] if len(members) == 1 else [out / name for name in folder_names(found)]
        if len(members) > 1:
            stack.enter_context(lock(out))
            remove_stale(out)
        sites = sorted({site for member in members for site in member.sites}, key=lambda site: site.depth)
        opened = _open(plan, runs[0].recipe, lm, sites, out, progress=progress)
        jobs = [
            _job(member, folder, opened, lm, plan, widths=[lm.d_model] * len(member.sites))
            for member, folder in zip(members, folders, strict=True)
        ]
        results = _trained_jobs(jobs, opened.source, plan.masking, progress=progress)
        trained = [
            _trained(member, _swept(member, one, members), result)
            for member, one, result in zip(members, found, results, strict=True)
        ]
        if len(members) > 1:
            _write_sweep(plan, members, trained, out)
        return trained


def _trained_jobs(
    jobs: Sequence[Job], source: Source, masking: Masking | None, *, progress: bool
) -> Sequence[TrainResult]:
    """Train what was asked for; what shall denoise by way of a transcoder."""
    if masking is None or masking.variant != "denoising":
        return train_jobs(jobs, source, progress=progress)
    made = train_jobs([denoising_job(job) for job in jobs], source, progress=progress)
    return [as_dictionary(result, job) for result, job in zip(made, jobs, strict=True)]


def _trained(member: Member, swept: Mapping[str, Any], result: TrainResult) -> TrainedSAE:
    makes_meter = member.config.sae_class.reads == "one" and member.sites[0].place == "resid_post"
    measures = (result.fvu, result.l0, result.dead)
    return TrainedSAE(result.path, result.digest, member.config.seed, *measures, swept, makes_meter)


def _write_sweep(plan: SourcePlan, members: Sequence[Member], trained: Sequence[TrainedSAE], out: Path) -> None:
    """The table of a run of several SAEs, with paths from `out`, so that the folder can be moved."""
    rows = [row.to_json() | {"path": row.path.relative_to(out).as_posix()} for row in trained]
    config = plan.model_dump(mode="json", include=set(SourcePlan.model_fields))
    config["runs"] = [{**member.where(), **member.config.model_dump(mode="json")} for member in members]
    write_json(out / SWEEP_FILE, {"config": config, "rows": rows})


def run_training(
    plan: TrainingPlan, recipe: TrainConfig, out: Path, runtime: Runtime, *, progress: bool = False
) -> list[TrainedSAE]:
    """`run_sweep` of one block and one recipe, an SAE a seed. Errors: those of `run_sweep`."""
    plain = recipe.model_dump()
    runs = [RunConfig.model_validate({**plain, "seed": seed, "layer": plan.layer}) for seed in plan.seeds]
    return run_sweep(plan, runs, out, runtime, progress=progress)
