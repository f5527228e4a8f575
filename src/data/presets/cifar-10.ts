import type { Preset } from "./preset.ts";

/** Small photographs. */
export const cifar10: Preset = {
  name: "cifar-10",
  title: "CIFAR-10: ten kinds of small photographs",
  paper: "Krizhevsky 2009",
  source: "https://www.cs.toronto.edu/~kriz/cifar.html",
  license: "none is stated; free for research with the citation",
  columns: { image: "32 x 32 colours, or img", label: "0 airplane to 9 truck" },
  splits:
    "50,000 train and 10,000 test, told apart by the names of the six files of the binary version; of Parquet files name that of the test part in data.splits.test",
  template: "the image, resized as the model says",
  job: {
    task: "image-classification",
    data: {
      classes: ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
      splits: { field: "split" },
    },
    evaluation: { metrics: ["accuracy"], split: "test" },
  },
  prepare: (rows) => rows.map((row) => (row.image === undefined ? { ...row, image: row.img } : row)),
};
