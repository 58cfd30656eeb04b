"""What the trainer's tests share."""

from step import load_checkpoint

CLASS_IDS = (7, 10, 12, 14, 65, 69, 70)


def detect_config(data, **changes):
    values = {
        "kind": "detect",
        "data": {"folder": str(data), "classes": dict(zip(CLASS_IDS, "abcdefg", strict=True)), "cache": True},
        "model": {"image_size_px": 48, "width": 0.06, "fc_dim": 8, "chunks": [1, 1], "dropout": 0.1},
        "selection": {"positive_iou": [0.2, 0.35], "regression_iou": [0.2, 0.35]},
        "augmentation": {"photometric": False, "erase": False},
        "optimizer": {"batch": 2, "epochs": 2, "warmup": 2, "head_rate": 1e-3},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            values[section] = values[section] | {key: value}
        else:
            values[section] = value
    return values


def weights_of(path):
    return load_checkpoint(path).state_dict()
