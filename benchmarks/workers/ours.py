"""The worker that runs usae. Autoencoders and batches have names."""

import platform

import numpy as np
import serving

import usae

saes, batches = {}, {}


def info():
    config = usae.show_config()
    del config["extension"]  # it is a path on this machine
    return config | {"python": platform.python_version(), "numpy": np.__version__}


def load_batch(name, files, start=0, stop=None, copy=True):
    """Load rows of activations, {model: file}, under a name."""
    batches[name] = {j: np.load(file, mmap_mode="r")[start:stop] for j, file in files.items()}
    if copy:
        batches[name] = {j: np.array(x) for j, x in batches[name].items()}


def make(name, base, n_concepts, k, threads, arguments=None, changes=None, widths=None):
    """Make an autoencoder. With `widths` it is initialised without standardisation, otherwise by its first batch."""
    recipe = getattr(usae.recipes, base)(**(arguments or {})).replace(**(changes or {}))
    saes[name] = usae.UniversalSAE(n_concepts, k, recipe=recipe, seed=0, n_threads=threads)
    if widths:
        saes[name].initialize(widths)


def set_parameters(name, files):
    """Set the parameters of each model, from {model: file}."""
    for model, file in files.items():
        with np.load(file) as arrays:
            saes[name].set_parameters(model, dict(arrays))


def silence(name, batch, one_in):
    """Make one concept of `one_in` too weak to be selected: its encoder row and bias are divided by 1,000 in every model.

    The first batch initialises the other parameters. Returns how many concepts are dead in the last model's next step.
    """
    sae = saes[name]
    sae.partial_fit(batches[batch])
    for model in sae.model_names_:
        own = sae.parameters(model)
        weight, bias = own["encoder_weight"], own["encoder_bias"]
        weight[::one_in] *= 1e-3
        bias[::one_in] *= 1e-3
        sae.set_parameters(model, {"encoder_weight": weight, "encoder_bias": bias})
        dead = [sae.partial_fit(batches[batch], encoder=model).dead for _ in range(2)]
    return dead[-1]


def drop(name):
    del saes[name]


def step(name, batch, encoder, count=1):
    """Do steps on the batches in turn, given as one name or a list. Returns their seconds and losses."""
    names = [batch] if isinstance(batch, str) else batch
    losses, seconds = [], []
    for number in range(count):
        given = batches[names[number % len(names)]]
        seconds += serving.timed(lambda given=given: losses.append(saes[name].partial_fit(given, encoder=encoder).loss), 1)
    return {"seconds": seconds, "losses": losses}


def step_and_save(name, batch, encoder, file):
    """Do one step, and save the encoded model's gradients and its parameters after the step. Returns the loss."""
    _, gradients = saes[name].gradients(batches[batch], encoder=encoder)
    loss = saes[name].partial_fit(batches[batch], encoder=encoder).loss
    after = saes[name].parameters(encoder)
    gradients = {f"gradient_{key}": value for key, value in gradients[encoder].items()}
    np.savez(file, **gradients, **after)
    return loss


def encode(name, batch, model, count=1):
    x = batches[batch][model]
    return {"seconds": serving.timed(lambda: saes[name].encode(x, model), count)}


def encode_and_save(name, batch, model, file):
    codes = saes[name].encode(batches[batch][model], model)
    np.savez(file, values=codes.values, indices=codes.indices)


def resident():
    return serving.resident_bytes()


def peak():
    return serving.peak_bytes()


def start_threads(base, threads):
    """Do a tiny step, which starts the threads and allocates the buffers of BLAS."""
    x = np.random.default_rng(0).standard_normal((256, 32), dtype=np.float32)
    arguments = {"total_steps": 100, "warmup_steps": 10} if base == "published" else {}
    recipe = getattr(usae.recipes, base)(**arguments)
    usae.UniversalSAE(64, 4, recipe=recipe, n_threads=threads).partial_fit({"a": x, "b": x[:, :16]})


if __name__ == "__main__":
    commands = [
        info, load_batch, make, set_parameters, silence, drop, step, step_and_save, encode, encode_and_save, resident, peak,
        start_threads,
    ]  # fmt: skip
    serving.serve({command.__name__: command for command in commands})
