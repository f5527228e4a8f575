import { imageSource } from "../images/pixels.ts";
import type { DataRecord } from "../record.ts";
import type { Preset } from "./preset.ts";

const classes = ["glioma", "meningioma", "pituitary", "none"];

/** The folders of the published set. */
const folders: ReadonlyMap<string, string> = new Map([
  ["glioma_tumor", "glioma"],
  ["meningioma_tumor", "meningioma"],
  ["pituitary_tumor", "pituitary"],
  ["no_tumor", "none"],
  ["notumor", "none"],
]);

/** Brain images with and without a tumour. */
export const brainMri: Preset = {
  name: "brain-mri",
  title: "Brain tumour MRI: four classes",
  paper: "Bhuvaji et al., Kaggle 2020",
  source: "https://www.kaggle.com/datasets/sartajbhuvaji/brain-tumor-classification-mri",
  license: "none is stated; look at the source before you use or pass on the images",
  columns: { image: "gray image", label: classes.map((one, i) => `${i} ${one}`).join(", ") },
  splits:
    "2,870 training and 394 testing images; the testing part is noisy, so both are pooled, equal images but the first are left out, and a job holds out 10 % each for validation and test",
  template: "the image, resized as the model says",
  job: {
    task: "image-classification",
    data: { classes, splits: { validation: 0.1, test: 0.1 } },
    evaluation: { metrics: ["accuracy", "f1Macro"] },
  },
  prepare(rows) {
    const seen = new Set<string>();
    return rows.map((row) => {
      const key = contentOf(row);
      if (key !== undefined && seen.has(key)) return "an image that occurs before";
      if (key !== undefined) seen.add(key);
      return { ...row, label: folders.get(String(row.label)) ?? row.label };
    });
  },
};

/** The bytes of an image as text; undefined where they lie in a file of their own. */
function contentOf({ image }: DataRecord): string | undefined {
  const source = imageSource(image);
  if (source === undefined || "file" in source) return undefined;
  return new TextDecoder("latin1").decode("data" in source ? source.data : source.bytes);
}
