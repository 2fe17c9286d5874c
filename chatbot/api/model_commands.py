"""What the command line can ask about models; long ones begin a job, and say how it ended unless told not to wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import Cancelled, ChatbotError, FailedCheck, NotFoundError
from chatbot.jobs import error_of
from chatbot.models.chain import Keep
from chatbot.models.relations import choose_base
from chatbot.services import Services
from chatbot.types import Backend, Job, ModelArtifact, ModelRole
from chatbot.workshop.orders import left_documents
from chatbot.workshop.outline import Wanted

if TYPE_CHECKING:
    from chatbot.models.catalog import Offer, Way

Result = dict[str, Any]


def models_list(services: Services) -> Result:
    """Every model, and which one is loaded."""
    loaded = services.engines.loaded
    return {
        "models": [_row(model) for model in services.models.list()],
        "loaded": loaded.spec.model_id if loaded else None,
    }


def models_import(
    services: Services,
    path: str,
    copy: bool = False,
    documents: bool = False,
    wait: bool = True,
) -> Result:
    """Take a model of this PC into the list, with `documents` also those in its zip: {id, path, format}."""
    job = services.workshop.take_in(Path(path), link=not copy, documents=documents)
    return _begun(services, job, wait)


def models_download(
    services: Services,
    repo: str,
    revision: str | None = None,
    file: str | None = None,
    role: ModelRole | None = None,
    wait: bool = True,
) -> Result:
    """Fetch a repository of the hub, or one GGUF file of it."""
    job = services.workshop.download(repo, revision=revision, file=file, role=role)
    return _begun(services, job, wait)


def models_ready(
    services: Services,
    source: str,
    adapter: str | None = None,
    type: str = "auto",  # noqa: A002  as the command line names it
    keep: Keep = "checkable",
    revision: str | None = None,
    file: str | None = None,
    wait: bool = True,
) -> Result:
    """From a repository, a path or an id to a model that runs here, each step checked."""
    wanted = Wanted(adapter=adapter, type=type, keep=keep, revision=revision, file=file)
    return _begun(services, services.workshop.make_ready(source, wanted), wait)


def models_prepare(
    services: Services,
    source: str,
    precision: str = "auto",
    form: str = "hf",
    device: str = "auto",
    wait: bool = True,
) -> Result:
    """Save a model in 16 bits."""
    job = services.workshop.prepare(source, precision=precision, form=form, device=device)
    return _begun(services, job, wait)


def models_merge(services: Services, source: str, adapter: str, wait: bool = True) -> Result:
    """Merge an adapter into its base."""
    return _begun(services, services.workshop.merge(source, adapter), wait)


def models_convert(
    services: Services,
    source: str,
    type: str = "auto",  # noqa: A002  as the command line names it
    base: str | None = None,
    wait: bool = True,
) -> Result:
    """Turn a model folder into a GGUF file; an adapter, with its base, into a LoRA file for llama.cpp."""
    _choose_base(services, source, base)
    return _begun(services, services.workshop.convert(source, type), wait)


def _choose_base(services: Services, adapter: str, base: str | None) -> None:
    if base is not None:
        choose_base(services.models, services.models.get(adapter), services.models.get(base))


def models_quantise(
    services: Services,
    source: str,
    type: str,  # noqa: A002  as the command line names it
    importance: str | None = None,
    documents: bool = False,
    wait: bool = True,
) -> Result:
    """Make a GGUF smaller; with `documents` exact where the person's documents need it."""
    return _begun(
        services,
        services.workshop.quantise(source, type, importance=importance, documents=documents),
        wait,
    )


def models_verify(
    services: Services, source: str, parent: str | None = None, wait: bool = True
) -> Result:
    """Check a model: {verdict, parent, checks, types}."""
    return _begun(services, services.workshop.verify(source, parent), wait)


def models_package(
    services: Services, source: str, file: str, library: bool = False, wait: bool = True
) -> Result:
    """Write a model into one zip: {file, size, ratio}."""
    return _begun(services, services.workshop.package(source, Path(file), library=library), wait)


def models_push(
    services: Services, source: str, repo: str, private: bool = True, wait: bool = True
) -> Result:
    """Upload a model to the person's own repository."""
    return _begun(services, services.workshop.push(source, repo, private=private), wait)


def models_bench(services: Services, source: str, wait: bool = True) -> Result:
    """Measure how fast a model is here."""
    return _begun(services, services.workshop.bench(source), wait)


def models_result(services: Services, job: str) -> Result:
    """How a job about models ended, as the command that began it tells it. Raises the job's own error."""
    return _result(services, services.jobs.job(job))


def models_catalogue(services: Services, search: str = "") -> Result:
    """The models known to work and how each would run here; with `search` what the hub has under a name."""
    from chatbot.hardware.detect import installed
    from chatbot.models.catalog import best_way, catalogue, look_at, offers

    if search.strip():
        from chatbot.models.hub import Hub

        with Hub() as hub:
            hits = hub.search(search)
        looks = look_at(hits, services.hardware(), installed())
        rows = []
        for hit in hits:
            look, row = looks.get(hit.repo), asdict(hit)
            if isinstance(look, tuple):
                best = best_way(look)
                row |= {"fits": best is not None, "best": best.type if best else None}
                row["ways"] = [_way(way) for way in look]
            rows.append(row | ({"error": look.code} if isinstance(look, ChatbotError) else {}))
        return {"models": rows}
    found = offers(catalogue(services.paths), services.hardware(), installed())
    return {"models": [_offer(offer) for offer in found]}


def models_load(
    services: Services,
    id: str,  # noqa: A002  as clients name it
    context: int | None = None,
    kv_type: str | None = None,
    batch: int | None = None,
    gpu_layers: int | None = None,
    backend: Backend | None = None,
    anyway: bool = False,
    base: str | None = None,
) -> Result:
    """Load a model and say how it runs; an adapter beside that `base`."""
    _choose_base(services, id, base)
    wishes = {"context": context, "kv_type": kv_type, "batch": batch, "gpu_layers": gpu_layers}
    engine = services.load_model(id, anyway=anyway, backend=backend, **wishes)
    return asdict(engine.info)


def models_unload(services: Services) -> Result:
    """Free the loaded model's memory."""
    services.engines.unload()
    return {"loaded": None}


def models_remove(services: Services, id: str) -> Result:  # noqa: A002  as clients name it
    """Take a model off the list."""
    services.remove_model(id)
    return {"removed": id}


COMMANDS: dict[str, Callable[..., Result]] = {
    "models list": models_list,
    "models import": models_import,
    "models download": models_download,
    "models ready": models_ready,
    "models prepare": models_prepare,
    "models merge": models_merge,
    "models convert": models_convert,
    "models quantise": models_quantise,
    "models verify": models_verify,
    "models package": models_package,
    "models push": models_push,
    "models bench": models_bench,
    "models catalogue": models_catalogue,
    "models result": models_result,
    "models load": models_load,
    "models unload": models_unload,
    "models remove": models_remove,
}


def _begun(services: Services, job: Job, wait: bool) -> Result:
    if not wait:
        return {"job": job.id}
    return _result(services, services.jobs.wait(job.id))


def _result(services: Services, job: Job) -> Result:
    error = error_of(job)
    made = [step.model for step in job.steps if step.model]
    # What was made but did not pass its check is there all the same: the verdict says so.
    if error and not (isinstance(error, FailedCheck) and made and job.kind != "make_ready"):
        raise error
    if job.state != "done" and not error:
        raise Cancelled
    if job.kind in ("package", "push"):
        told: Result = json.loads(job.message)
        return told
    model_id = (made[-1] if made else None) or job.params.get("source")
    if model_id is None:
        raise NotFoundError(job.id)
    model = services.models.get(model_id)
    if job.kind == "verify":
        return {"id": model.id, **model.manifest["verdict"]}
    if job.kind == "bench":
        return {"id": model.id, **model.manifest["bench"]}
    figures = (model.manifest.get("made") or {}).get("figures") or {}
    verdict = model.manifest.get("verdict") or {}
    return {
        **figures,
        "id": model.id,
        "path": model.path,
        "format": model.format,
        "name": model.name,
        "size": model.size,
        "verdict": verdict.get("verdict"),
        "checks": verdict.get("checks", []),
        "job": job.id,
        **({"documents": "left"} if left_documents(job) else {}),
    }


def _offer(offer: Offer) -> Result:
    entry = offer.entry
    return {
        "repo": entry.repo,
        "name": entry.name,
        "role": entry.role,
        "licence": entry.licence,
        "languages": list(entry.languages),
        "parameters": entry.parameters,
        "context": entry.context,
        "gated": entry.gated,
        "recommended": offer.recommended,
        "best": offer.best.type if offer.best else None,
        "fits": offer.best is not None,
        "ways": [_way(way) for way in offer.ways],
    }


def _way(way: Way) -> Result:
    return {
        "repo": way.repo,
        "type": way.type,
        "size": way.size,
        "fits": way.fits,
        "reason": way.plan.reason if way.plan else None,
    }


def _row(model: ModelArtifact) -> Result:
    row = asdict(model)
    manifest = row.pop("manifest")
    return {
        **row,
        "verdict": (manifest.get("verdict") or {}).get("verdict"),
        "origin": manifest.get("origin"),
        "parent": (manifest.get("made") or {}).get("parent"),
    }
