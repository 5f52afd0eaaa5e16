"""GenEval (arXiv 2310.11513): check that a picture shows what its prompt names, in number, colour and place.

An instance segmentation network finds the things, a CLIP names their colours, and the rules of the benchmark decide.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import Mask2FormerForUniversalSegmentation

from distill.evaluation import metrics
from distill.evaluation.benchmark import Benchmark, Judge
from distill.evaluation.feature_spaces import check_folder, frozen
from distill.evaluation.measuring import fingerprint
from distill.evaluation.preprocessing import Preprocessing
from distill.evaluation.scores import ClipPair

SURE, SURE_IN_COUNTING = 0.3, 0.9
LARGEST_COUNT = 16
FOUND = 100
"""Most instances considered in a picture."""

APART = 0.1
"""Least distance of the centres of two things that stand beside each other, as a share of their summed sizes."""

GREY = 0x99
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
COLOR_PROMPTS = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""COCO's names → the benchmark's, where they differ."""


@dataclass(frozen=True)
class Thing:
    """One found instance: `box` is (left, top, right, bottom) in pixels, `mask` bool [H, W]."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: torch.Tensor


Detect = Callable[[torch.Tensor], list[Thing]]
"""uint8 [H, W, 3] → the things in it, the surest first."""

NameColors = Callable[[torch.Tensor, Sequence[Thing]], list[str]]


def benchmark(tasks: Path, detector_folder: Path, clip_folder: Path) -> Benchmark:
    """The benchmark of `evaluation_metadata.jsonl`, with both networks loaded. Raises ValueError for other files."""
    read = read_tasks(tasks)
    detect, name_colors = detector(detector_folder), colors(clip_folder)

    def right(part: slice, images: torch.Tensor) -> torch.Tensor:
        return judge(read[part], images, detect, name_colors).unsqueeze(-1)

    def report(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
        mine, its = (each.squeeze(-1) for each in (ours, theirs))
        return {
            "model": by_tag(read, mine),
            "teacher": by_tag(read, its),
            "difference": asdict(metrics.paired_difference(mine.mean(1), its.mean(1))),
        }

    networks = fingerprint(tasks, detector_folder, clip_folder)
    return Benchmark(
        "geneval", tuple(task["prompt"] for task in read), judge=Judge(f"geneval-{networks}", right, report)
    )


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """The benchmark's `evaluation_metadata.jsonl`. Raises ValueError for another file."""
    tasks = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    for number, task in enumerate(tasks, 1):
        if missing := {"prompt", "tag", "include"} - task.keys():
            raise ValueError(f"--geneval: line {number} of {path} has no {', '.join(sorted(missing))}")
    if not tasks:
        raise ValueError(f"--geneval: {path} is empty")
    return tasks


def judge(tasks: Sequence[Mapping[str, Any]], images: torch.Tensor, detect: Detect, colors: NameColors) -> torch.Tensor:
    """Judge pictures uint8 [P, R, H, W, 3]: float [P, R], 1 for right and 0 for wrong."""
    rows = [
        [float(is_right(task, image, detect(image), colors)) for image in of_task]
        for task, of_task in zip(tasks, images, strict=True)
    ]
    return torch.tensor(rows)


def by_tag(tasks: Sequence[Mapping[str, Any]], right: torch.Tensor) -> dict[str, float]:
    """The share of right pictures of each kind of task, and `overall`, the mean over the kinds."""
    tags = sorted({task["tag"] for task in tasks})
    shares = {
        tag: float(torch.stack([row for task, row in zip(tasks, right, strict=True) if task["tag"] == tag]).mean())
        for tag in tags
    }
    return {**shares, "overall": sum(shares.values()) / len(shares)}


def is_right(task: Mapping[str, Any], image: torch.Tensor, things: Sequence[Thing], colors: NameColors) -> bool:
    """All of `include` hold, in number, colour and place of the surest things, and none of `exclude`."""
    sure = SURE_IN_COUNTING if task["tag"] == "counting" else SURE
    found: dict[str, list[Thing]] = {}
    for thing in sorted(things, key=lambda thing: -thing.score):
        of_name = found.setdefault(thing.name, [])
        if thing.score > sure and len(of_name) < LARGEST_COUNT:
            of_name.append(thing)
    matched: list[list[Thing]] = []
    for wanted in task["include"]:
        count = wanted["count"]
        candidates = found.get(wanted["class"], [])[:count]
        if len(candidates) < count:
            return False
        if "color" in wanted and colors(image, candidates).count(wanted["color"]) < count:
            return False
        if "position" in wanted:
            relation, other = wanted["position"]
            if any(relation not in relations(one, target) for one in candidates for target in matched[other]):
                return False
        matched.append(candidates)
    return all(len(found.get(unwanted["class"], [])) < unwanted["count"] for unwanted in task.get("exclude", []))


def relations(one: Thing, other: Thing) -> set[str]:
    """The position of `one` relative to `other`; empty while their centres are too near each other."""
    first, second = (torch.tensor(thing.box, dtype=torch.float64).view(2, 2) for thing in (one, other))
    offset = first.mean(0) - second.mean(0)
    sizes = (first[1] - first[0]) + (second[1] - second[0])
    beyond = (offset.abs() - APART * sizes).clamp_min(0) * offset.sign()
    if beyond.abs().max() < 1e-3:
        return set()
    right, down = (beyond / offset.norm()).tolist()
    names = {"left of": right < -0.5, "right of": right > 0.5, "above": down < -0.5, "below": down > 0.5}
    return {name for name, holds in names.items() if holds}


def detector(folder: Path) -> Detect:
    """A Mask2Former for COCO instances. Raises ValueError for another folder."""
    check_folder("--detector", folder, ("mask2former",))
    network = frozen(
        Mask2FormerForUniversalSegmentation.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    )
    preprocessing = Preprocessing.load(folder)
    names = {int(index): NAMES.get(name, name) for index, name in network.config.id2label.items()}

    @torch.no_grad()
    def detect(image: torch.Tensor) -> list[Thing]:
        output = network(pixel_values=preprocessing(image[None].to(network.device)))
        return instances(output.class_queries_logits[0], output.masks_queries_logits[0], image.shape[:2], names)

    return detect


def instances(classes: torch.Tensor, masks: torch.Tensor, size: Sequence[int], names: Mapping[int, str]) -> list[Thing]:
    """Logits [queries, classes + 1] and [queries, h, w] → things, the surest first. A thing's score is its class's
    probability times the mean probability of its mask."""
    probability = classes.softmax(-1)[:, :-1]
    best = probability.flatten().topk(min(FOUND, probability.numel()))
    logits = F.interpolate(masks[None], tuple(size), mode="bilinear")[0].cpu()
    things = []
    for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        query, kind = divmod(index, probability.shape[1])
        mask = logits[query] > 0
        if mask.any():
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            box = (float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1)
            things.append(Thing(names[kind], score * float(logits[query].sigmoid()[mask].mean()), box, mask))
    return sorted(things, key=lambda thing: -thing.score)


def colors(folder: Path) -> NameColors:
    """A CLIP that names the colour of each thing, cut out on grey. Raises ValueError for another folder."""
    pair = ClipPair("--colors", folder)

    def name_colors(image: torch.Tensor, things: Sequence[Thing]) -> list[str]:
        texts = [form.format(color, things[0].name) for color in COLORS for form in COLOR_PROMPTS]
        directions = F.normalize(pair.texts(texts).view(len(COLORS), len(COLOR_PROMPTS), -1).mean(1), dim=-1)
        seen = torch.cat([pair.pictures(cut_out(image, thing)[None]) for thing in things])
        return [COLORS[index] for index in (seen @ directions.T).argmax(1).tolist()]

    return name_colors


def cut_out(image: torch.Tensor, thing: Thing) -> torch.Tensor:
    """The thing's box of uint8 [H, W, 3], with grey wherever the thing is not."""
    left, top, right, bottom = map(int, thing.box)
    alone = torch.where(thing.mask[..., None], image, torch.tensor(GREY, dtype=torch.uint8))
    return alone[top:bottom, left:right]
