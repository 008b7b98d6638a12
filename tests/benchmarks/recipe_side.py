"""The other side of train.py, started by it: what torchvision's reference recipe for classification does on a CPU.

An ``ImageFolder`` through a ``DataLoader`` with worker processes, its presets of transforms, SGD, an evaluation and a
checkpoint after each epoch. Writes each epoch's seconds, less the checkpoint, as JSON.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    options = parser.parse_args()
    end = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float), transforms.Normalize(MEAN, STD)]
    augmented = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *end])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *end])
    train = loader(options.data / "train", augmented, options, shuffle=True)
    validation = loader(options.data / "validation", plain, options, shuffle=False)
    model = models.resnet18(num_classes=len(datasets.ImageFolder(options.data / "train").classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    seconds = []
    for _ in range(options.epochs):
        began = time.perf_counter()
        train_epoch(model, train, optimizer)
        schedule.step()
        evaluate(model, validation)
        seconds.append(time.perf_counter() - began)
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, options.result.with_suffix(".pth")
        )
    options.result.write_text(json.dumps(seconds), encoding="utf-8")


def loader(
    folder: Path, transform: transforms.Compose, options: argparse.Namespace, *, shuffle: bool
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    photos = datasets.ImageFolder(folder, transform)
    return DataLoader(photos, options.batch_size, shuffle=shuffle, num_workers=options.workers)


def train_epoch(model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer) -> None:
    criterion = nn.CrossEntropyLoss()
    model.train()
    for photos, labels in batches:
        loss = criterion(model(photos), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # the recipe logs each step's loss


@torch.inference_mode()
def evaluate(model: nn.Module, batches: DataLoader) -> float:
    model.eval()
    right = [(model(photos).argmax(1) == labels).float() for photos, labels in batches]
    return float(torch.cat(right).mean())


if __name__ == "__main__":
    main()
