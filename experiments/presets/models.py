"""Settings that are known to work of what models data, by name."""

from typing import Any

from experiments.presets.preset import Preset, data
from generative.image_networks import DCGAN, Patch, ResNet, UNet
from jaxrl.core.fit import Optimizer
from jaxrl.core.networks import CNN, MLP, TransposedCNN
from jaxrl.core.schedule import Linear

# A GAN on mixtures of narrow modes: with a penalty that fades, no mode is lost and each is sharp at the end.
TOY_GAN: dict[str, Any] = {
    "generator": MLP((128, 128, 128), "relu"),
    "discriminator": MLP((128, 128, 128), "leaky_relu"),
    "penalize": True,
    "batch_size": 64,
}

# Strided convolutions down, transposed ones up, for 28x28 pixels.
CONV_28: dict[str, Any] = {
    "encoder": CNN((32, 64), (4, 4), (2, 2), "SAME", hidden=(256,)),
    "decoder": TransposedCNN((256,), (64, 32), (4, 4), (2, 2)),
}

# For sprites of 64x64 pixels: the networks, latents and batches of Locatello et al. 2019, table 2.
CONV_64: dict[str, Any] = {
    "latent_size": 10,
    "encoder": CNN((32, 32, 64, 64), (4, 4, 4, 4), (2, 2, 2, 2), "SAME", hidden=(256,)),
    "decoder": TransposedCNN((256,), (64, 64, 32, 32), (4, 4, 4, 4), (2, 2, 2, 2)),
    "batch_size": 64,
}

# For sprites of 32x32 pixels, on a CPU.
CONV_32: dict[str, Any] = {
    "latent_size": 10,
    "encoder": CNN((16, 32), (4, 4), (4, 2), "SAME", hidden=(128,)),
    "decoder": TransposedCNN((128,), (32, 16), (4, 4), (2, 4)),
    "batch_size": 16,
}

PRESETS = {
    "autoencoder-linear-digits": Preset(
        "autoencoder",
        data("digits"),
        500 * 1297,
        config={"latent_size": 8, "encoder": MLP(()), "decoder": MLP(())},
        hparams={"learning_rate": Linear(1e-2)},
    ),
    "autoencoder-digits": Preset(
        "autoencoder",
        data("digits"),
        100 * 1297,
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "autoencoder-conv-mnist": Preset(
        "autoencoder",
        data("mnist"),
        20 * 50_000,
        config={"error": "cross_entropy", **CONV_28},
        evaluations=20,
    ),
    "vae-digits": Preset(
        "vae",
        data("digits"),
        100 * 1297,
        config={"latent_size": 10, "binarization": "dynamic"},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "vae-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        100 * 60_000,
        config={"binarization": "dynamic"},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "vae-conv-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        100 * 60_000,
        config={"binarization": "dynamic", **CONV_28},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "iwae-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        100 * 60_000,
        config={"binarization": "dynamic", "importance_samples": 5},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "cvae-digits": Preset(
        "vae",
        data("digits"),
        100 * 1297,
        config={"latent_size": 10, "binarization": "dynamic", "conditional": True},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    # Few latents and a beta above 1: codes drawn at random then show the class they should, 74 % of them if not.
    "cvae-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        50 * 60_000,
        config={"latent_size": 8, "binarization": "dynamic", "conditional": True},
        hparams={"learning_rate": Linear(3e-3), "beta": 2.0},
    ),
    # The protocol of Locatello et al. 2019, for a GPU; `small` is what a CPU can do.
    "beta-vae-sprites": Preset(
        "vae",
        data("sprites", "side=64"),
        300_000 * 64,
        config=CONV_64,
        hparams={"learning_rate": 1e-4, "beta": 4.0},
    ),
    "capacity-vae-sprites": Preset(
        "vae",
        data("sprites", "side=64"),
        300_000 * 64,
        config=CONV_64,
        hparams={"learning_rate": 1e-4, "beta": 1000.0, "capacity": Linear(0.0, 25.0, 0.33)},
    ),
    "beta-vae-sprites-small": Preset(
        "vae",
        data("sprites"),
        30_000 * 16,
        config=CONV_32,
        hparams={"learning_rate": Linear(1e-3, 1e-4), "beta": 4.0},
        evaluations=12,
    ),
    # Latents come into use one after the other: each keeps a factor of its own in more seeds than with a fixed beta.
    "capacity-vae-sprites-small": Preset(
        "vae",
        data("sprites"),
        50_000 * 16,
        config=CONV_32,
        hparams={"learning_rate": Linear(1e-3, 1e-4), "beta": 50.0, "capacity": Linear(0.0, 12.0, 0.8)},
        evaluations=12,
        seeds=4,
    ),
    "vae-binarized-mnist": Preset(
        "vae",
        data("binarized_mnist"),
        100 * 50_000,
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "made-digits": Preset(
        "made",
        data("digits"),
        50 * 1297,
        config={"hidden": (200,)},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    # The training images are learnt by heart without the decay.
    "made-binarized-mnist": Preset(
        "made",
        data("binarized_mnist"),
        14 * 50_000,
        config={"hidden": (5000,), "optimizer": Optimizer("adamw", weight_decay=0.3)},
        hparams={"learning_rate": Linear(1.5e-3)},
        evaluations=14,
        seeds=3,
        published="88.40 (Germain et al. 2015)",
    ),
    "made-binarized-mnist-32": Preset(
        "made",
        data("binarized_mnist"),
        100 * 50_000,
        config={"hidden": (5000,), "num_masks": 32, "optimizer": Optimizer("adamw", weight_decay=0.02)},
        hparams={"learning_rate": Linear(1.5e-3)},
        evaluations=10,
        seeds=1,
        published="88.04 (Germain et al. 2015)",
    ),
    "nade-digits": Preset(
        "nade",
        data("digits"),
        50 * 1297,
        config={"hidden": (200,)},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "nade-digits-orders": Preset(
        "nade",
        data("digits"),
        400 * 1297,
        config={"hidden": (200, 200), "activation": "relu", "training": "all_orders", "num_orders": 8},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "nade-binarized-mnist": Preset(
        "nade",
        data("binarized_mnist"),
        50 * 50_000,
        hparams={"learning_rate": Linear(1e-3)},
        evaluations=25,
        seeds=1,
        published="88.33 (Larochelle and Murray 2011)",
    ),
    "pixelcnn-digits": Preset(
        "pixelcnn",
        data("digits"),
        30 * 1297,
        config={"num_blocks": 3},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    # Seen by a first kernel as wide as the digits, the whole image counts from the start: 3 nats after 1000 updates.
    "pixelcnn-binarized-mnist": Preset(
        "pixelcnn",
        data("binarized_mnist"),
        6 * 50_000,
        config={"first_kernel": 27, "kernel": 5, "num_blocks": 5},
        hparams={"learning_rate": Linear(4e-3)},
        evaluations=6,
        seeds=1,
        published="81.30 (van den Oord et al. 2016)",
    ),
    # A softmax over 256 levels, of grey and of each of three colours.
    "pixelcnn-sprites": Preset(
        "pixelcnn",
        data("sprites", "side=16"),
        2000 * 16,
        config={"num_blocks": 2},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=5,
        seeds=1,
    ),
    "pixelcnn-sprites-color": Preset(
        "pixelcnn",
        data("sprites", "side=16", "color=True"),
        2000 * 16,
        config={"features": 33, "head": 33, "num_blocks": 2},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=5,
        seeds=1,
    ),
    "gated-pixelcnn-digits": Preset(
        "gated_pixelcnn",
        data("digits"),
        30 * 1297,
        config={"num_layers": 4, "conditional": True},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    "gated-pixelcnn-binarized-mnist": Preset(
        "gated_pixelcnn",
        data("binarized_mnist"),
        4 * 50_000,
        config={"first_kernel": 27, "kernel": 5, "num_layers": 4},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=4,
        seeds=1,
    ),
    "gated-pixelcnn-sprites": Preset(
        "gated_pixelcnn",
        data("sprites", "side=16"),
        2000 * 16,
        config={"num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=5,
        seeds=1,
    ),
    "gated-pixelcnn-sprites-color": Preset(
        "gated_pixelcnn",
        data("sprites", "side=16", "color=True"),
        2000 * 16,
        config={"features": 33, "head": 33, "num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=5,
        seeds=1,
    ),
    "pixelrnn-row-digits": Preset(
        "pixelrnn",
        data("digits"),
        30 * 1297,
        config={"num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    "pixelrnn-row-binarized-mnist": Preset(
        "pixelrnn",
        data("binarized_mnist"),
        5 * 50_000,
        config={"num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=10,
    ),
    "pixelrnn-diagonal-digits": Preset(
        "pixelrnn",
        data("digits"),
        30 * 1297,
        config={"recurrence": "diagonal", "num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    "pixelrnn-diagonal-binarized-mnist": Preset(
        "pixelrnn",
        data("binarized_mnist"),
        5 * 50_000,
        config={"recurrence": "diagonal", "features": 32, "num_layers": 1},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=10,
    ),
    "pixelcnnpp-digits": Preset(
        "pixelcnnpp",
        data("digits"),
        30 * 1297,
        config={"num_sizes": 2, "num_layers": 1, "conditional": True},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "pixelcnnpp-sprites": Preset(
        "pixelcnnpp",
        data("sprites", "side=16", "color=True"),
        3000 * 16,
        config={"num_sizes": 2, "num_layers": 1},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "wavenet-sounds": Preset(
        "wavenet",
        data("sounds"),
        10 * 2000,
        config={"conditional": True},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=10,
    ),
    "gan-ring": Preset(
        "gan",
        data("ring"),
        20_000 * 64,
        config={"latent_size": 4, **TOY_GAN},
        hparams={
            "learning_rate": Linear(3e-3, 1.5e-4),
            "discriminator_learning_rate": Linear(2e-3, 1e-4),
            "gradient_penalty": Linear(0.01, 0.0005),
            "average_decay": 0.998,
        },
        evaluations=20,
    ),
    "gan-grid": Preset(
        "gan",
        data("grid"),
        25_000 * 64,
        config={"latent_size": 2, **TOY_GAN},
        hparams={
            "learning_rate": Linear(2e-3, 6e-5),
            "discriminator_learning_rate": Linear(2e-3, 6e-4),
            "gradient_penalty": Linear(0.01, 0.0003),
            "average_decay": 0.998,
        },
        evaluations=20,
    ),
    "gan-digits": Preset(
        "gan",
        data("digits"),
        6000 * 64,
        config={"latent_size": 16, "conditional": True, "penalize": True, "batch_size": 64},
        hparams={
            "learning_rate": Linear(1e-3, 5e-5),
            "discriminator_learning_rate": Linear(1e-3, 5e-5),
            "average_decay": 0.998,
        },
        evaluations=20,
    ),
    "dcgan-mnist": Preset(
        "gan",
        data("mnist"),
        30 * 60_000,
        config={"generator": DCGAN(), "discriminator": DCGAN(), "conditional": True, "batch_size": 128},
        evaluations=30,
    ),
    # The 1000 modes: packing against collapse, as Lin et al. 2018 do (their table 3).
    "pacgan-stacked-mnist": Preset(
        "gan",
        data("stacked_mnist"),
        50 * 50_000,
        config={
            "latent_size": 100,
            "generator": DCGAN((64, 128)),
            "discriminator": DCGAN((64, 128)),
            "packing": 2,
            "batch_size": 64,
            "classifier_updates": 3000,
            "eval_samples": 26_000,
        },
        evaluations=25,
    ),
    "wgan-gp-mnist": Preset(
        "wgan_gp",
        data("mnist"),
        60 * 50_000,
        config={"generator": DCGAN(), "critic": DCGAN(norm="none")},
        evaluations=30,
    ),
    "sngan-mnist": Preset(
        "sngan",
        data("mnist"),
        30 * 50_000,
        config={"generator": DCGAN(), "discriminator": DCGAN(norm="none")},
        evaluations=30,
    ),
    "pix2pix-sprites": Preset(
        "pix2pix",
        data("sprites_filled"),
        1500 * 16,
        config={"generator": UNet((16, 32, 32)), "discriminator": Patch((16, 32))},
        hparams={"learning_rate": Linear(1e-3, 5e-5)},
        evaluations=20,
    ),
    # The cycle counts for nothing at first: a generator that changes nothing returns everything, and gets stuck there.
    "cyclegan-digits": Preset(
        "cyclegan",
        data("digits_inverted"),
        3000 * 16,
        config={"generator": ResNet((16,), 0, "none"), "discriminator": Patch((16,), "none")},
        hparams={
            "learning_rate": Linear(2e-3, 1e-4),
            "discriminator_learning_rate": Linear(5e-4, 5e-5),
            "cycle_weight": Linear(0.0, 5.0),
            "identity_weight": 0.0,
        },
        evaluations=20,
    ),
}
