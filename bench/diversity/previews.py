"""Cost of previews for the call that is watched: four images of the bundled student with and without a listener.

`make bench-diverse` writes bench/results/previews.json. Without a listener nothing is decoded (tests/worker).
"""

import json
import time
from statistics import median

from bench import results_file
from bench.diversity.diverse_sets import Side, bench_task, make, student
from worker.engine.outcomes import PreviewImage
from worker.image_bytes import encode_image
from worker.previews import FORMAT, QUALITY

IMAGES, REPEATS = 4, 9


def main() -> None:
    engine = student()
    shown: list[PreviewImage] = []
    engine.show = shown.extend
    sides = {"watched": Side(), "alone": Side()}
    for repeat in range(REPEATS):
        for name, side in sides.items():
            engine.watched = {"bench"} if name == "watched" else ()
            make(engine, {str(index): bench_task("an animal", repeat + index) for index in range(IMAGES)}, side)
    began = time.perf_counter()
    sizes = [len(encode_image(preview.pixels, FORMAT, QUALITY)) for preview in shown]
    encoding = (time.perf_counter() - began) / len(shown)
    alone = median(sides["alone"].seconds)
    report = {
        "images": IMAGES,
        "previews_per_image": len(shown) / IMAGES / REPEATS,
        "time_ratio_watched": median(sides["watched"].seconds) / alone,
        "encoding_share_per_preview": encoding / alone,
        "bytes_per_preview": median(sizes),
    }
    results_file.write("previews", report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
