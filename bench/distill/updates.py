"""Student updates per second on the bundled teacher: our trainer against the order of the authors' released loop.

    python -m bench.distill.updates [--repeats 5]

Theirs, transcribed: one kind of turn an iteration; in each, the prompts are encoded anew for teacher (with the
unconditional ones), student and critic; the guided teacher is evaluated once on a batch of twice the size; every
student turn decodes its pictures and writes them as PNG. Ours: prompts are encoded once, nothing is decoded, guidance
takes two passes of a batch, blocks are compiled. Both take the same losses, networks, optimisers, precision and number
of critic turns; their cycles take turns in one process, and the medians are compared. The rows: `ours` by the recipe;
`uncompiled`, the same without compilation; `reused`, compiled, the critic learning from the samples of the student's
own turn (`critic_rollouts: 0`).
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
import yaml

from bench import results_file
from distill import config as configuration
from distill import image_grid, teacher_pipeline
from distill.config import DistillConfig
from distill.method import dp_dmd
from distill.training.trainer import Prompt, Trainer
from worker.families.prompt_embeddings import concatenated, stacked
from worker.pixels import to_uint8
from worker.sampling.noise_schedule import Predict

CONFIG = Path("distill/configs/emoji.yaml")


class AuthorsLoop:
    """The released script's iterations, with the roles and optimisers of a `trainer` that does not compile."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer = trainer
        self.folder = folder
        self.pipeline = teacher_pipeline.load_text_encoders(trainer.config.teacher)
        self.prompts = configuration.read_prompts(trainer.config.prompts)

    def cycle(self) -> None:
        for _ in range(self.trainer.config.critic_updates):
            self.iteration(of_student=False)
        self.iteration(of_student=True)

    def iteration(self, *, of_student: bool) -> None:
        trainer, generator = self.trainer, self.trainer.stream.generator
        drawn = torch.randint(len(self.prompts), (trainer.config.batch,), generator=generator).tolist()
        texts = [self.prompts[number] for number in drawn]
        with torch.no_grad():
            for_teacher, unconditional = self.encode(texts), self.encode([""] * len(texts))
            for_student, for_critic = self.encode(texts), self.encode(texts)
        noise = torch.randn(trainer.config.batch, *trainer.latent_shape, generator=generator)
        student, critic = trainer.predict(trainer.student, for_student), trainer.predict(trainer.critic, for_critic)
        if of_student:
            teacher = self.guided(for_teacher, unconditional)
            made: list[torch.Tensor] = []
            loss = dp_dmd.student_losses(
                student, critic, teacher, noise, generator, trainer.hparams, terms={"kept": (0.0, _keep_in(made))}
            ).total
            self.update(loss, trainer.student.weights, trainer.student_optimizer)
            with torch.no_grad():
                pixels = to_uint8(trainer.decode(made[0])).cpu().numpy()
            image_grid.save_grid(pixels, len(pixels), self.folder / "batch.png")
        else:
            x = dp_dmd.sample(student, noise, trainer.hparams)
            loss = dp_dmd.critic_loss(critic, x, generator, trainer.hparams)
            self.update(loss, trainer.critic.weights, trainer.critic_optimizer)

    def encode(self, texts: list[str]) -> Prompt:
        return stacked(self.trainer.family.encode(self.pipeline, texts, self.trainer.config.max_sequence_length))

    def guided(self, prompt: Prompt, unconditional: Prompt) -> Predict:
        """One evaluation of a batch twice as large."""
        trainer = self.trainer
        velocity = trainer.predict(trainer.teacher, concatenated(unconditional, prompt))

        def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            without, positive = velocity(torch.cat([state, state]), torch.cat([t, t])).chunk(2)
            return without + trainer.config.guidance_scale * (positive - without)

        return predict

    def update(self, loss: torch.Tensor, weights: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.parameters(), self.trainer.config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _keep_in(made: list[torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def term(x: torch.Tensor) -> torch.Tensor:
        made.append(x.detach())
        return x.new_zeros(())

    return term


def main(repeats: int = 5) -> None:
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), repeats)
    results_file.write("distill_updates", result)
    for name, found in result["seconds_an_update"].items():
        print(
            f"{name:<12}{found:8.2f} s an update, {result['processor_seconds_an_update'][name]:8.2f} s of processor, "
            f"{result['ratio'][name]:.2f} times the authors' updates a second"
        )


def compare(folder: Path, repeats: int) -> dict[str, Any]:
    compiled, uncompiled = (
        Trainer(_config(folder, compile), folder / f"compiled-{compile}") for compile in (True, False)
    )
    theirs = AuthorsLoop(Trainer(_config(folder, False), folder / "theirs"), folder)
    ways: dict[str, Callable[[], Any]] = {
        "ours": partial(_cycle, compiled, compiled.config.critic_rollouts),
        "uncompiled": partial(_cycle, uncompiled, uncompiled.config.critic_rollouts),
        "reused": partial(_cycle, compiled, 0),
        "authors": theirs.cycle,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-1, repeats):  # the first round compiles and does not count
        for name, cycle in ways.items():
            started, started_processor = time.perf_counter(), time.process_time()
            cycle()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(time.process_time() - started_processor)
    medians, of_processor = (
        {name: round(statistics.median(found), 3) for name, found in times.items()} for times in (seconds, processor)
    )
    return {
        "ratio": {name: round(medians["authors"] / found, 3) for name, found in medians.items()},
        "ratio_of_processor_time": {
            name: round(of_processor["authors"] / found, 3) for name, found in of_processor.items()
        },
        "seconds_an_update": medians,
        "processor_seconds_an_update": of_processor,
        "repeats": repeats,
        "precision": compiled.config.precision,
    }


def _cycle(trainer: Trainer, critic_rollouts: int | None) -> None:
    trainer.config = trainer.config.model_copy(update={"critic_rollouts": critic_rollouts})
    trainer.cycle(1)


def _config(folder: Path, compile: bool) -> DistillConfig:
    settings = yaml.safe_load(CONFIG.read_text()) | {"compile": compile, "embeddings": str(folder / "embeddings")}
    return DistillConfig.model_validate(settings)


if __name__ == "__main__":
    typer.run(main)
