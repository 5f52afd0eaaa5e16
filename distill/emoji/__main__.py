"""Make the bundled model from nothing: `python -m distill.emoji --work DIR`.

Every stage is resumable: call the same command again after an interruption.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from distill import teacher_pipeline
from distill.emoji import artwork, autoencoder, encoder, pipeline, sample_grid, students, teacher, text_encoders
from distill.emoji.captions import Captions
from distill.training import checkpoints
from jobs.sampling_contract import FILE_NAME, SamplingContract
from worker.model_folder.weights_hash import weights_sha256
from worker.pixels import to_uint8
from worker.sampling.noise_schedule import shifted_grid

PROMPTS = Path("distill/configs/emoji-prompts.txt")
STEPS = 30
# For the playground. The first is vague, and different seeds give different fruit; the model draws all of them well.
EXAMPLES = ("fruit", "a monster", "a happy face", "a fox face", "a panda", "a rocket", "a hamburger", "a rainbow")


def main(
    work: Annotated[Path, typer.Option(help="Where downloads, checkpoints and sample grids are kept.")],
    out: Annotated[Path, typer.Option(help="The diffusers folder to write.")] = Path("models/emoji-teacher"),
    start: Annotated[
        Path | None, typer.Option(help="A teacher folder to go on from: only its transformer is trained further.")
    ] = None,
    prompts: Annotated[Path, typer.Option(help="The prompt file to write, for distillation.")] = PROMPTS,
    distil: Annotated[bool, typer.Option(help="Train and evaluate the students too, beside the teacher.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; auto is the first GPU if there is one.")] = "auto",
    autoencoder_steps: int = 4000,
    encoder_steps: int = 2500,
    text_steps: int = 5000,
    teacher_steps: int = 28_000,
    teacher_batch: int = teacher.BATCH,
) -> None:
    """Fetch the artwork, train every part, save the teacher as a diffusers pipeline folder, distil it by both methods.

    What is finished is skipped, what was begun goes on.
    """
    torch.set_flush_denormal(True)
    on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    pictures = artwork.kept(work)
    captions = Captions(pictures)
    prompts.write_text("\n".join(captions.prompt_lines()) + "\n")
    if not _finished(work / "teacher", teacher_steps, out):
        latents = None
        if start is not None:
            parts = teacher_pipeline.load(start)
        else:
            vae = autoencoder.train(pictures, work / "autoencoder", autoencoder_steps, device=on).eval()
            latents = autoencoder.kept_latents(vae, pictures, work / "latents.safetensors")
            decoded = to_uint8(pipeline.decode(vae, latents)).cpu()
            reader = encoder.train(pictures, decoded, work / "encoder", encoder_steps, on)
            reader.save(out.parent / "emoji-encoder")
            text = text_encoders.train(captions, work / "text_encoders", text_steps, on)
            parts = pipeline.assemble(vae, text, teacher.build())
        # The text encoders stay in float32: transformers loads a file in the type it is stored in, diffusers in
        # float32, and a plain `from_pretrained` must give a pipeline of one type.
        teacher.make(
            parts, captions, work / "teacher", teacher_steps, out, latents=latents, device=on, batch=teacher_batch
        )
        contract(out).save(out)
    if distil:
        folders = {"dp-dmd": out.parent / "emoji-student", "dmd": work / "dmd-student"}
        runs = {"dp-dmd": work / "student", "dmd": work / "dmd-run"}
        for method, folder in folders.items():
            students.make(method, out, prompts, runs[method], folder)
        students.evaluate(
            folders, out, out.parent / "emoji-encoder", work / "evaluation", out.parent / "evaluation.json"
        )


def contract(folder: Path) -> SamplingContract:
    """The teacher's sampling: 30 guided steps, 60 evaluations."""
    return SamplingContract(
        method="flow-matching",
        family="sd3",
        prediction="flow",
        steps=STEPS,
        sigmas=list(shifted_grid(STEPS, pipeline.SHIFT)),
        guidance_scale=sample_grid.GUIDANCE_SCALE,
        max_sequence_length=text_encoders.TOKENS,
        sizes=[(artwork.SIZE, artwork.SIZE)],
        base_sha256=weights_sha256(folder),
        examples=list(EXAMPLES),
    )


def _finished(run: Path, steps: int, out: Path) -> bool:
    """Return whether the teacher was trained for `steps` in `run` and is in `out`."""
    return steps in checkpoints.steps_of(run) and (out / FILE_NAME).is_file()


if __name__ == "__main__":
    typer.run(main)
