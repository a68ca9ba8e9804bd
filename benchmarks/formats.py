"""Which formats train a net as well as floating point, and what they cost.

    python benchmarks/formats.py
    python benchmarks/formats.py --net C --epochs 3 --figure formats.svg

Trains the net's float twin in the files' order at batch 1, and the golden model with each choice of
formats that its ranges suggest. Each seed has first weights of its own.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from nets import BOARD, DATA, NETS, images

import streamtrain as st
from streamtrain.tables import text_table


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if no formats are within the tolerance."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, default="M", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--samples", type=int, metavar="N", help="only the first N training images")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.05,
        metavar="PART",
        help="by which the loss may exceed that in floating point (default: %(default)s)",
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="data sets (default: %(default)s)"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the study there")
    options = parser.parse_args(arguments)
    net = NETS[options.net]
    data = images(net, options.data)
    study = st.study_formats(
        net.network(),
        data.train_x[: options.samples],
        data.train_y[: options.samples],
        BOARD,
        epochs=options.epochs,
        foldings=net.design().foldings,
        tolerance=options.tolerance,
        seeds=options.seeds,
    )
    print(f"{net.name}: {net.text}, learning rate {net.lr:g}, batch 1\n")
    print(text_table(*study.range_table()), study, sep="\n\n")
    if options.figure:
        study.plot(options.figure)
    return 0 if study.good else 1


if __name__ == "__main__":
    sys.exit(main())
