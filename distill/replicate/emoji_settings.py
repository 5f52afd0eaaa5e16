"""The emoji settings: `emoji-small`, whose teacher is exact, and `emoji`, the bundled pair. Hours on one core.

Every run has a run folder of the shipped trainer, so a killed one goes on from its last checkpoint; its student is
exported, sampled as it is served and read by the frozen encoder.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.progress import track

from distill import runs
from distill.config import DistillConfig
from distill.emoji import artwork
from distill.emoji import benchmark as emoji
from distill.evaluation import feature_spaces, metrics, pictures, report
from distill.evaluation.pictures import PictureSet, part
from distill.replicate import gates
from distill.replicate.exact_trainer import ExactTrainer
from distill.replicate.gates import Gate
from distill.replicate.results import write_json
from distill.training.trainer import Trainer
from jobs.sampling_contract import SamplingContract
from worker.pixels import to_uint8
from worker.sampling import noise
from worker.sampling.noise_schedule import FLOW

RECIPE = Path("distill/configs/emoji.yaml")
METHODS: tuple[str, ...] = (
    "dmd", "dp-dmd", "dp-dmd-nodetach", "dmd-perceptual", "dmd-gan", "step1-regression",
)  # fmt: skip
PERCEPTUAL = {"network": "distill.emoji.encoder:perceptual_network"}
SEEDS = 9
"""Pictures of each of the 93 prompts."""


@dataclass(frozen=True)
class Plan:
    """The students that a setting trains, their number of updates, batch size and guidance scale; `pictures` of each
    prompt are read."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    updates: int
    batch: int
    guidance: float = 3.5
    pictures: int = SEEDS


SMALL = Plan(METHODS, (0, 1, 2), updates=100, batch=8, guidance=1.0)
PAIR = Plan(("dmd", "dp-dmd"), (0,), updates=150, batch=16)
QUICK = Plan(("dmd", "dp-dmd"), (0,), updates=2, batch=2, pictures=4)


def small(plan: Plan, out: Path, work: Path) -> None:
    """Students of the exact teacher. `work` keeps the artwork, which is fetched when it is not there yet."""
    side, _ = SamplingContract.load(configured(plan, "dmd", 0).teacher).sizes[0]
    pictures_of_world = artwork.kept(work, side)
    for method, seed in _missing(plan, out):
        config = configured(plan, method, seed)
        trainer = ExactTrainer(config, out / "runs" / f"{method}-{seed}", pictures_of_world)
        student = _trained(trainer, config, out, method, seed)
        theirs = exact_pictures(trainer, plan.pictures, out)
        write_json(out / f"{method}-{seed}.json", _read(config, student, theirs, out))


def pair(plan: Plan, out: Path) -> None:
    """The bundled teacher's students, compared as `fourstep evaluate` compares them."""
    for method, seed in _missing(plan, out):
        config = configured(plan, method, seed)
        student = _trained(Trainer(config, out / "runs" / f"{method}-{seed}"), config, out, method, seed)
        evaluation = report.EvaluationConfig(
            plan.pictures, {emoji.NAME: emoji.ENCODER}, {}, pictures.Sampling(30, config.guidance_scale)
        )
        folder = out / "evaluations" / f"{method}-{seed}"
        found = report.evaluate(student, config.teacher, emoji.benchmark(), evaluation, folder)
        write_json(out / f"{method}-{seed}.json", {"config": _as_json(config), "report": found})


def judged(results: Mapping[str, Any]) -> list[Gate]:
    """The gates for an emoji setting, over the vague prompts; means over the seeds that DMD and DP-DMD share. `results`
    by the runs' names, as `results.gathered` reads them.

    Intervals are over those seeds; of a single one they are a point, and the gate that asks for an interval says
    nothing.
    """
    dmd, ours = reports(results, "dmd"), reports(results, "dp-dmd")
    shared = sorted(dmd.keys() & ours.keys())
    if not shared:
        return [Gate("dmd and dp-dmd", "both trained", "not run", None)]

    def of(one: Mapping[int, Any], read: Callable[[Mapping[str, Any]], float]) -> torch.Tensor:
        return torch.tensor([read(one[seed]) for seed in shared], dtype=torch.float64)

    of_dmd, of_ours = of(dmd, vague_diversity), of(ours, vague_diversity)
    whole = torch.ones_like(of_dmd)
    lost, kept, more = (metrics.paired_ratio(*pair) for pair in ((of_dmd, whole), (of_ours, whole), (of_ours, of_dmd)))
    match = float(of(ours, prompt_match).mean())
    quality = float(of(ours, precision).mean() / of(dmd, precision).mean())
    return [
        *gates.diversity_gates(lost, more, kept, several_seeds=len(shared) > 1),
        Gate("prompt match", "match ÷ teacher's ≥ .97", f"{match:.3f}", match >= 0.97),
        Gate("quality", "precision ÷ DMD's ≥ .95", f"{quality:.3f}", quality >= 0.95),
    ]


def reports(results: Mapping[str, Any], method: str) -> dict[int, dict[str, Any]]:
    """Training seed → report, of every run of `method`."""
    found = {name.rpartition("-")[::2]: result["report"] for name, result in results.items()}
    return {int(seed): report for (of, seed), report in sorted(found.items()) if of == method}


def vague_diversity(report: Mapping[str, Any]) -> float:
    """Diversity of the vague prompts' pictures, as a share of the teacher's."""
    return report["spaces"]["emoji"]["diversity"]["vague"]["ratio"]["value"]


def prompt_match(report: Mapping[str, Any]) -> float:
    """Prompt match, as a share of the teacher's."""
    return report["emoji"]["prompt_match_ratio"]["value"]


def precision(report: Mapping[str, Any]) -> float:
    """The share of pictures that lie among the teacher's."""
    return report["spaces"]["emoji"]["manifolds"]["precision"]


def configured(plan: Plan, method: str, seed: int) -> DistillConfig:
    """The bundled student's recipe, but for the method, the teacher's guidance and the plan's length."""
    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    recipe |= {"method": method, "seed": seed, "steps": plan.updates, "batch": plan.batch, "compile": False}
    recipe["guidance_scale"] = plan.guidance
    if method in ("dmd", "dmd-perceptual", "dmd-gan"):
        recipe.pop("lambda")
    if method == "step1-regression":
        del recipe["critic_updates"], recipe["critic_rollouts"]
    if method == "dmd-perceptual":
        recipe["perceptual"] = PERCEPTUAL
    return DistillConfig.model_validate(recipe)


def exact_pictures(trainer: ExactTrainer, count: int, out: Path) -> PictureSet:
    """The exact teacher's, from the noise of the seeds that the students are sampled with; kept in `out`."""
    prompts = emoji.prompts()
    seeds = range(report.FIRST_SEED, report.FIRST_SEED + count)
    path = out / f"teacher-{count}.npy"
    if not path.exists():
        start = torch.cat([noise.draw(seed, trainer.latent_shape) for seed in seeds])
        made = []
        for prompt in track(prompts, description="exact teacher"):
            captions = torch.full((count,), trainer.exact.caption(prompt))
            with torch.no_grad():
                latents = FLOW.solve(trainer.exact.conditional(captions), start, trainer.hparams.teacher_grid)
                made.append(to_uint8(trainer.decode(latents)).cpu().numpy())
        np.save(path, np.stack(made))
    evaluations = len(trainer.hparams.teacher_grid) - 1
    images = np.load(path, allow_pickle=False)
    return PictureSet(
        "exact", evaluations, prompts, tuple(seeds), images.shape[2:4], path.stem, lambda unit: images[part(unit)]
    )


def _missing(plan: Plan, out: Path) -> list[tuple[str, int]]:
    """The runs of the plan that have no result yet. Raises ValueError when one has a result of another plan."""
    missing = []
    for seed, method in product(plan.seeds, plan.methods):
        path = out / f"{method}-{seed}.json"
        if not path.exists():
            missing.append((method, seed))
        elif DistillConfig.model_validate(json.loads(path.read_text())["config"]) != configured(plan, method, seed):
            raise ValueError(f"{path} was made with other settings; take another --out")
    return missing


def _trained(trainer: Any, config: DistillConfig, out: Path, method: str, seed: int) -> Path:
    """Train, or go on training; returns the exported student's folder."""
    run, student = out / "runs" / f"{method}-{seed}", out / "students" / f"{method}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(_as_json(config), sort_keys=False))
    with runs.denormals_flushed():
        trainer.train()
    runs.export(run, student, "bfloat16")
    return student


def _read(config: DistillConfig, student: Path, theirs: PictureSet, out: Path) -> dict[str, Any]:
    ours = pictures.make(student, theirs.prompts, theirs.seeds, out / "pictures", pictures.Sampling(30, 1.0))
    ours.save_grid(student / "grid.png")
    spaces = feature_spaces.load({emoji.NAME: emoji.ENCODER})
    return {"config": _as_json(config), "report": report.compared(ours, theirs, emoji.benchmark(), spaces, out)}


def _as_json(config: DistillConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)
