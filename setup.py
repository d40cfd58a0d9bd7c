# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

from pathlib import Path

from setuptools import find_packages, setup


extras = {
    "demo": ["mlxtend>=0.23,<0.25", "matplotlib>=3.9"],
    "peft": ["peft>=0.19"],
    "deepspeed": ["deepspeed>=0.18.6"],
    "serving": ["openai>=2", "httpx>=0.27", "tenacity>=9", "fastapi>=0.115", "uvicorn>=0.30"],
    "vllm": ["vllm>=0.22,<=0.31"],
    "real": ["gguf>=0.17,<1", "onnx>=1.17", "onnxruntime>=1.20"],
    "test": [
        "pytest>=8.3",
        "pytest-timeout>=2.3.1",
        "pytest-xdist>=3.6.1",
        "ruff==0.17.6",
        "hypothesis>=6.110",
        "jmespath>=1",
        "openai>=2",
        "httpx>=0.27",
        "tenacity>=9",
        "fastapi>=0.115",
        "uvicorn>=0.30",
        "math-verify>=0.8",
        "peft>=0.19",
        "scikit-learn>=1.5",
    ],
    "quality": ["ruff==0.17.6", "pre-commit>=4"],
}
extras["dev"] = sorted({package for group in ("demo", "test", "quality") for package in extras[group]})

setup(
    name="trl_r1v2",
    version="0.1.0",
    description="The Skywork R1V2 method for TRL: hybrid reinforcement learning of vision-language reasoning models",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["trl_r1v2", "trl_r1v2.*"]),
    package_data={"trl_r1v2": ["**/*.html", "**/*.jinja", "py.typed"]},
    install_requires=[
        "trl>=1.16,<1.17",
        "transformers>=5.10.4,<6",
        "torch>=2.7",
        "torchvision>=0.22",
        "accelerate>=1.10.1",
        "datasets>=4.7.0",
        "safetensors>=0.5",
        "mpmath>=1.3",
        "pillow>=11",
        "rich>=13",
        "scipy>=1.13",
        "jinja2>=3.1.6",
        "packaging>=22",
        "pydantic>=2.9",
        "pyyaml>=6.0.1",
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["trl-r1v2 = trl_r1v2.scripts.main:main"]},
)
