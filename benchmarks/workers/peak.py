"""How fast this core multiplies matrices."""

import json


def main() -> None:
    from benchmarks.budget import matrix_peak

    print(json.dumps({"flop_per_s": matrix_peak(), "wall": {}, "cpu": {}}))


if __name__ == "__main__":
    main()
