"""Trains TopK autoencoders with a library and saves them its own way: independent_training.py LIBRARY JOBS, in its environment.

JOBS lists them: the files of training and held-out tokens, [n, width], the sizes, the seed, the learning rate, and the folder
that the save (``save``), the codes and reconstructions of the held-out tokens (``told.npz``), and the share of the training
tokens' variance that is not explained (``told.json``) go to.
"""

import importlib.metadata
import json
import pathlib
import shutil
import sys

import exchange_library
import numpy as np
import torch


def batches(job, x):
    """Yield the job's batches: all rows in a random order, again and again."""
    random, order = np.random.default_rng(job["seed"]), np.empty(0, int)
    for _ in range(job["steps"]):
        while len(order) < job["batch"]:
            order = np.concatenate([order, random.permutation(len(x))])
        chosen, order = order[: job["batch"]], order[job["batch"] :]
        yield x[chosen]


def decay_start(job):
    return job["steps"] - job["decay"]


def sae_lens(library, job, x, path):
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=job["n_concepts"], k=job["k"], device="cpu"))
    config = SAETrainerConfig(
        total_training_samples=job["steps"] * job["batch"],
        train_batch_size_samples=job["batch"],
        lr=job["rate"],
        lr_end=job["rate"] / 10,
        lr_warm_up_steps=job["warmup"],
        lr_decay_steps=job["decay"],
        dead_feature_window=job["dead_steps"],
    )
    SAETrainer(cfg=config, sae=sae, data_provider=batches(job, x)).fit().save_inference_model(path)
    return library.load(path)


def dictionary_learning(library, job, x, path):
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(
        job["steps"],
        x.shape[1],
        job["n_concepts"],
        job["k"],
        0,
        "none",
        lr=job["rate"],
        warmup_steps=job["warmup"],
        decay_start=decay_start(job),
        seed=job["seed"],
        device="cpu",
    )
    trainer.dead_feature_threshold = job["dead_steps"] * job["batch"]  # 10 million tokens otherwise, more than there are
    for step, batch in enumerate(batches(job, x)):
        trainer.update(step, batch)
    library.save(trainer.ae, path)
    return library.load(path)


def overcomplete(library, job, x, path):
    from overcomplete.sae import TopKSAE, train_sae

    sae = TopKSAE(x.shape[1], job["n_concepts"], top_k=job["k"], device="cpu")
    optimizer = torch.optim.Adam(sae.parameters(), lr=job["rate"])

    def rate(step):
        return min(1, (step + 1) / job["warmup"], (job["steps"] - step) / job["decay"])

    def criterion(x, x_hat, pre_codes, codes, dictionary):  # that of its first example; the library has no default
        return (x - x_hat).square().mean()

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    train_sae(sae, batches(job, x), criterion, optimizer, scheduler, nb_epochs=1, monitoring=0)
    library.save(sae, path)
    again = TopKSAE(x.shape[1], job["n_concepts"], top_k=job["k"], device="cpu")
    again.load_state_dict(torch.load(path / "state.pt"))
    again.standardization = torch.zeros(()), torch.ones(())
    return again.eval()


LIBRARIES = {
    "sae_lens": (exchange_library.SAELens, sae_lens),
    "dictionary_learning": (exchange_library.DictionaryLearning, dictionary_learning),
    "overcomplete": (exchange_library.Overcomplete, overcomplete),
}


def main(name, jobs):
    torch.set_num_threads(1)
    kind, train = LIBRARIES[name]
    library = kind()
    for job in json.loads(jobs.read_text()):
        torch.manual_seed(job["seed"])
        out = pathlib.Path(job["out"])
        x, held_out = (torch.from_numpy(np.load(job[part])) for part in ("train", "held_out"))
        shutil.rmtree(out / "save", ignore_errors=True)  # of a run that was stopped
        sae = train(library, job, x, out / "save")
        with torch.no_grad():
            sample = x[: job["sample"]]
            residual = sample - library.run(sae, sample)[1]
            codes, values = library.run(sae, held_out)
        np.savez(out / "told.npz", codes=codes.numpy(), values=values.numpy())
        told = {"train_fvu": float(residual.square().sum() / (sample - x.mean(0)).square().sum())}
        told |= {"version": importlib.metadata.version(library.package), "torch": torch.__version__}
        (out / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
