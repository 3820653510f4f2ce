"""Loads exports with a library, and saves autoencoders of its own: exchange_library.py LIBRARY FOLDER, in its environment.

FOLDER/jobs.json lists exports: their folder, the file of activations, and where codes and reconstructions go. What the library
saves itself goes to FOLDER/theirs/NAME, with activations, codes and reconstructions in FOLDER/theirs/NAME.npz.
"""

import importlib
import importlib.metadata
import json
import pathlib
import sys
import types

import numpy as np
import torch

N, D, OUT, K = 96, 24, 32, 4


def without_init(package):
    """Let modules of a package be imported without what its __init__ imports."""
    root = importlib.util.find_spec(package).submodule_search_locations
    module = types.ModuleType(package)
    module.__path__ = list(root)
    sys.modules[package] = module


class SAELens:
    package = "sae-lens"

    def load(self, path):
        from sae_lens import SAE

        return SAE.load_from_disk(path, device="cpu")

    def run(self, sae, x):
        codes = sae.encode(x)
        return codes, sae.decode(codes)

    def theirs(self):
        from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
        from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
        from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
        from sae_lens.saes.transcoder import JumpReLUTranscoder, JumpReLUTranscoderConfig, Transcoder, TranscoderConfig

        sizes = {"d_in": D, "d_sae": N, "device": "cpu"}
        made = {
            "topk": TopKSAE(TopKSAEConfig(**sizes, k=K)),
            "topk, rescaled": TopKSAE(TopKSAEConfig(**sizes, k=K, rescale_acts_by_decoder_norm=True)),
            "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(**sizes)),
            "jumprelu, own thresholds": JumpReLUSAE(JumpReLUSAEConfig(**sizes)),
            "standard": StandardSAE(StandardSAEConfig(**sizes)),
            "transcoder": Transcoder(TranscoderConfig(**sizes, d_out=OUT, apply_b_dec_to_input=False)),
            "jumprelu_transcoder": JumpReLUTranscoder(JumpReLUTranscoderConfig(**sizes, d_out=OUT, apply_b_dec_to_input=False)),
        }
        for name, sae in made.items():
            randomise(sae)
            with torch.no_grad():
                if name != "topk, rescaled":
                    sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
                if hasattr(sae, "threshold"):
                    sae.threshold.fill_(0.8)
                if "own" in name:
                    sae.threshold.uniform_(0, 2)
        return made

    def save(self, sae, path):
        sae.save_model(path)


class Sparsify:
    package = "eai-sparsify"

    def __init__(self):
        without_init("sparsify")

    def load(self, path):
        from sparsify.sparse_coder import SparseCoder

        return SparseCoder.load_from_disk(path)

    def run(self, sae, x):
        values, indices, _ = sae.encode(x)
        codes = torch.zeros(len(x), sae.num_latents).scatter_(1, indices, values)
        return codes, sae.decode(values, indices)

    def theirs(self):
        from sparsify.config import SparseCoderConfig
        from sparsify.sparse_coder import SparseCoder

        made = {
            "topk": SparseCoder(D, SparseCoderConfig(num_latents=N, k=K)),
            "transcoder": SparseCoder(D, SparseCoderConfig(num_latents=N, k=K, transcode=True)),
        }
        for sae in made.values():
            randomise(sae)
            sae.set_decoder_norm_to_unit_norm()
        return made

    def save(self, sae, path):
        sae.save_to_disk(path)


class VISAEBench:
    package = "visaebench"

    def __init__(self):
        without_init("visaebench")

    def load(self, path):
        from visaebench.hub.loader import load_sae

        return load_sae(str(path), device="cpu")

    def run(self, sae, x):
        codes = sae.encode(x)
        return codes, sae.decode(codes)

    def theirs(self):
        """It trains none itself; its checkpoints are made by overcomplete, with a torch file and config.json."""
        from visaebench.hub.loader import load_sae_from_weights

        rows = torch.nn.functional.normalize(torch.randn(N, D), dim=1)
        state = {"encoder.weight": torch.randn(N, D), "encoder.bias": torch.randn(N), "decoder.weight": rows}
        state["decoder.bias"] = torch.randn(D)
        configs = {
            "topk": {"activation": "topk", "k": K},
            "batchtopk": {"activation": "batchtopk", "k": K, "threshold": 3.5},
            "jumprelu": {"activation": "jumprelu"},
        }
        made = {}
        for name, config in configs.items():
            own = dict(state)
            if name == "jumprelu":
                own["jump_thresholds"] = torch.full((N,), 3.0)
            made[name] = load_sae_from_weights(own, dict(config), device="cpu")
            made[name].saved = own, config
        return made

    def save(self, sae, path):
        path.mkdir(parents=True)
        state, config = sae.saved
        torch.save(state, path / "sae.pt")
        (path / "config.json").write_text(json.dumps(config))


class DictionaryLearning:
    package = "dictionary-learning"

    def load(self, path):
        from dictionary_learning.utils import load_dictionary

        return load_dictionary(str(path), device="cpu")[0]

    def run(self, sae, x):
        codes = sae.encode(x)
        return codes, sae.decode(codes)

    def theirs(self):
        from dictionary_learning.dictionary import AutoEncoder, JumpReluAutoEncoder
        from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
        from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
        from dictionary_learning.trainers.top_k import AutoEncoderTopK

        made = {
            "AutoEncoderTopK": AutoEncoderTopK(D, N, K),
            "BatchTopKSAE": BatchTopKSAE(D, N, K),
            "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(D, N, K, [N // 2, N // 2]),
            "JumpReluAutoEncoder": JumpReluAutoEncoder(D, N),
            "JumpReluAutoEncoder, own thresholds": JumpReluAutoEncoder(D, N),
            "AutoEncoder": AutoEncoder(D, N),
        }
        for name, sae in made.items():
            randomise(sae, only=("bias", "b_dec", "b_enc"))
            if name != "AutoEncoderTopK" and hasattr(sae, "threshold"):
                sae.threshold.data.fill_(0.5)
            if "own" in name:
                sae.threshold.data.uniform_(0, 1)
        return made

    def save(self, sae, path):
        path.mkdir(parents=True)
        torch.save(sae.state_dict(), path / "ae.pt")
        trainer = {"dict_class": type(sae).__name__} | ({"k": int(sae.k)} if hasattr(sae, "k") else {})
        (path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))


class Overcomplete:
    package = "overcomplete"

    def __init__(self):
        without_init("overcomplete")

    def load(self, path):
        from overcomplete.sae import TopKSAE
        from safetensors.torch import load_file

        config = json.loads((path / "config.json").read_text())
        sae = TopKSAE(
            config["input_shape"], config["nb_concepts"], top_k=config["top_k"], encoder_module=config["encoder_module"]
        )
        sae.load_state_dict(load_file(path / "model.safetensors"))
        (model,) = json.loads((path / "usae_export.json").read_text())["models"]
        sae.standardization = torch.tensor(model["mean"]), torch.tensor(model["scale"])
        return sae.eval()

    def run(self, sae, x):
        mean, scale = sae.standardization
        _, codes = sae.encode((x - mean) / scale)
        return codes, sae.decode(codes) * scale + mean

    def theirs(self):
        from overcomplete.sae import JumpSAE, TopKSAE

        made = {
            "TopKSAE, linear": TopKSAE(D, N, top_k=K),
            "TopKSAE, mlp_bn_1": TopKSAE(D, N, top_k=K, encoder_module="mlp_bn_1"),
            "JumpSAE": JumpSAE(D, N),
        }
        for sae in made.values():
            sae.standardization = torch.zeros(D), torch.ones(())
            sae(torch.randn(500, D))  # running statistics of BatchNorm
            sae.eval()
        return made

    def save(self, sae, path):
        path.mkdir(parents=True)
        torch.save(sae.state_dict(), path / "state.pt")


LIBRARIES = {
    "saelens": SAELens,
    "sparsify": Sparsify,
    "visaebench": VISAEBench,
    "dictionary_learning": DictionaryLearning,
    "overcomplete": Overcomplete,
}


def randomise(sae, only=()):
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if not only or name.endswith(only):
                parameter.copy_(torch.randn_like(parameter) / (D**0.5 if parameter.ndim == 2 else 3))


def main(name, folder):
    torch.manual_seed(0)
    library = LIBRARIES[name]()
    with torch.no_grad():
        for job in json.loads((folder / "jobs.json").read_text()):
            codes, values = library.run(library.load(pathlib.Path(job["path"])), torch.from_numpy(np.load(job["x"])))
            np.savez(job["out"], codes=codes.numpy(), values=values.numpy())
        x = torch.randn(1000, D)
        for title, sae in library.theirs().items():
            library.save(sae, folder / "theirs" / title)
            codes, values = library.run(sae, x)
            np.savez(folder / "theirs" / f"{title}.npz", x=x.numpy(), codes=codes.numpy(), values=values.numpy())
    print(json.dumps({"version": importlib.metadata.version(library.package), "torch": torch.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
