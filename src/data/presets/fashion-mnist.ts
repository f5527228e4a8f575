import type { Preset } from "./preset.ts";

/** Clothes in the format of MNIST. */
export const fashionMnist: Preset = {
  name: "fashion-mnist",
  title: "Fashion-MNIST: ten kinds of clothes",
  paper: "Xiao et al. 2017",
  source: "https://github.com/zalandoresearch/fashion-mnist",
  license: "MIT",
  columns: { image: "28 x 28 gray", label: "0 T-shirt/top to 9 Ankle boot" },
  splits:
    "60,000 train and 10,000 test, told apart by the names of the four IDX files of a folder; of Parquet files name that of the test part in data.splits.test",
  template: "the image, resized as the model says",
  job: {
    task: "image-classification",
    data: {
      classes: [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
      ],
      splits: { field: "split" },
    },
    evaluation: { metrics: ["accuracy"], split: "test" },
  },
};
