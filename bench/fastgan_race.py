#!/usr/bin/env python3
"""Trains FastGAN in kiln and in PyTorch on the same pictures for the same time and compares how far each gets.

    pip install torch numpy pillow
    python3 bench/fastgan_race.py data/photos --size 64 --width 16 --minutes 10

Both train on one folder of pictures, which this script crops and shrinks first, so that neither's picture reader matters: the same
networks, batch, DiffAugment, mirroring and optimiser, squared error as the reconstruction loss, float32. kiln's is
./fastgan_train with its defaults; PyTorch's is the published loop (tests/golden/fastgan_reference.py) with constant averaging 0.999,
and it draws its pictures as the public code does: averaged parameters, batch norm on the statistics of the batch (of 16).
Time is the time spent in training steps: reading pictures, drawing samples and measuring are not counted for either.
The distance is ./gan_metrics' sliced Wasserstein distance x 1000 from generated to real pictures, the same protocol for both: k
samples against k real pictures; lower is better, and "real against real" is what a perfect generator would reach.

Neither runs while the other does. Prints a table and writes race.json and the last grids to --out.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--width", type=int, default=16)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--minutes", type=float, default=10, help="of training, for each")
    p.add_argument("--points", type=int, default=8, help="measurements along the way")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layout", choices=("contiguous", "channels_last"), default="contiguous", help="PyTorch's; make bench tells which is faster")
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/race"))
    return p.parse_args()


def prepare(source, size, to):
    """The pictures of a folder, cropped to their middle square and shrunk."""
    from PIL import Image
    to.mkdir(parents=True)
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    for i, path in enumerate(paths):
        picture = Image.open(path).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture.resize((size, size), Image.LANCZOS, (left, top, left + side, top + side)).save(to / f"{i:05}.png")
    if not paths:
        sys.exit(f"{source}: no pictures")
    return len(paths)


def distance(real, fake, pictures, size):
    done = subprocess.run([ROOT / "gan_metrics", real, fake, "--pictures", str(pictures), "--size", str(size), "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def race_kiln(a, real):
    """Points (seconds in training steps, steps, distance) from the run's own log."""
    run = a.out / "kiln"
    seconds = a.minutes * 60
    # How many steps a measurement is apart, from a guess of the speed.
    probe = subprocess.run([ROOT / "bench_fastgan", "--size", str(a.size), "--width", str(a.width), "--batch", str(a.batch), "--steps", "5",
                            "--threads", str(a.threads)], capture_output=True, text=True, check=True)
    every = max(20, int(seconds / json.loads(probe.stdout)["seconds_per_step"] / a.points) // 20 * 20)
    process = subprocess.Popen([ROOT / "fastgan_train", real, "--size", str(a.size), "--ngf", str(a.width), "--ndf", str(a.width), "--batch", str(a.batch),
                                "--threads", str(a.threads), "--seed", str(a.seed), "--steps", "100000000", "--metric-every", str(every),
                                "--sample-every", "0", "--checkpoint-every", "100000", "--out", run], stdout=subprocess.DEVNULL)
    points, clock, known = [], {}, 0
    while process.poll() is None:
        time.sleep(2)
        log = run / "log.jsonl"
        if not log.exists():
            continue
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        clock = {r["step"]: r["seconds"] for r in rows if "seconds" in r}
        if clock and max(clock.values()) >= seconds:
            process.send_signal(signal.SIGINT)  # finishes its step, measures and saves
            process.wait()
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clock = {r["step"]: r["seconds"] for r in rows if "seconds" in r}
    last = max(clock)
    for r in rows:
        if "swd" in r:
            known = clock.get(r["step"], clock[last])
            points.append({"seconds": known, "steps": r["step"], "distance": r["swd"]})
            baseline = r["swd_baseline"]
    shutil.copy(sorted((run / "samples").glob("[0-9]*[0-9].png"))[-1], a.out / "kiln.png")
    return points, baseline


def race_torch(a, real, pictures):
    import numpy
    import torch
    from PIL import Image
    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import fastgan_reference as fastgan

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    layout = torch.channels_last if a.layout == "channels_last" else torch.contiguous_format
    images = torch.stack([torch.from_numpy(numpy.array(Image.open(p))) for p in sorted(real.glob("*.png"))]).permute(0, 3, 1, 2)
    g = fastgan.initialise(fastgan.Generator(a.size, a.width)).to(memory_format=layout)
    d = fastgan.initialise(fastgan.Discriminator(a.size, a.width)).to(memory_format=layout)
    opt_g, opt_d = fastgan.adam(g), fastgan.adam(d)
    averages = [p.detach().clone() for p in g.parameters()]
    shown = fastgan.Generator(a.size, a.width).to(memory_format=layout)
    z = torch.randn(pictures, 256)

    @torch.no_grad()
    def sample(to):
        shown.load_state_dict(g.state_dict())
        for p, average in zip(shown.parameters(), averages):
            p.copy_(average)
        to.mkdir(parents=True)
        made = torch.cat([shown(z[i:i + 16])[0] for i in range(0, pictures, 16)])
        made = ((made.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        for i, picture in enumerate(made):
            Image.fromarray(picture).save(to / f"{i:05}.png")
        return made

    points, spent, steps, order = [], 0.0, 0, []
    for point in range(1, a.points + 1):
        while spent < a.minutes * 60 * point / a.points:
            start = time.perf_counter()
            while len(order) < a.batch:
                order += torch.randperm(len(images)).tolist()
            x = images[order[:a.batch]].to(memory_format=layout).float() / 127.5 - 1
            order = order[a.batch:]
            x = torch.where(torch.rand(a.batch, 1, 1, 1) < 0.5, x, x.flip(3))
            fastgan.train_step(g, d, opt_g, opt_d, averages, x, fastgan.random_draws(g, a.batch))
            steps += 1
            spent += time.perf_counter() - start
        folder = a.out / f"torch-{point:02}"
        made = sample(folder)
        points.append({"seconds": spent, "steps": steps, "distance": distance(real, folder, pictures, a.size)["swd"]})
        print(f"PyTorch {spent:6.0f} s, step {steps}: {points[-1]['distance']:.1f}", flush=True)
    rows = [numpy.concatenate(list(made[i * 6:i * 6 + 6]), axis=1) for i in range(min(6, pictures // 6))]
    Image.fromarray(numpy.concatenate(rows)).save(a.out / "torch.png")
    return points, torch.__version__


def main():
    a = arguments()
    if a.out.exists():
        sys.exit(f"{a.out} is there already; remove it or give another --out")
    real = a.out / "pictures"
    count = prepare(a.folder, a.size, real)
    pictures = min(256, count // 2)
    kiln, baseline = race_kiln(a, real)
    for p in kiln:
        print(f"kiln    {p['seconds']:6.0f} s, step {p['steps']}: {p['distance']:.1f}")
    torch, version = race_torch(a, real, pictures)
    print(f"\n{count} pictures, {a.size} px, width {a.width}, batch {a.batch}, {a.threads} threads; PyTorch {version}, {a.layout}; "
          f"real against real {baseline:.1f}\n")
    print("| | " + " | ".join(f"{p['seconds'] / 60:.1f} min" for p in torch) + " |")
    print("|---" * (len(torch) + 1) + "|")
    for name, points in (("kiln", kiln), ("PyTorch", torch)):
        # The newest measurement at each of the times.
        at = [max((q for q in points if q["seconds"] <= p["seconds"] * 1.02 + 1), key=lambda q: q["seconds"], default=None) for p in torch]
        print(f"| {name}, distance (step) | " + " | ".join(f"{q['distance']:.1f} ({q['steps']})" if q else "" for q in at) + " |")
    json.dump({"pictures": count, "size": a.size, "width": a.width, "batch": a.batch, "threads": a.threads, "baseline": baseline,
               "torch_version": version, "torch_layout": a.layout, "kiln": kiln, "torch": torch}, open(a.out / "race.json", "w"), indent=1)


if __name__ == "__main__":
    main()
