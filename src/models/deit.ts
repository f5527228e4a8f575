import type { ImageInputs, Model } from "./model.ts";
import { type VitConfig, vitFamily } from "./vit.ts";

/** DeiT: ViT with a distillation token. Touvron et al., ICML 2021. https://arxiv.org/abs/2012.12877 */
export const deit: Model<VitConfig, ImageInputs> = vitFamily({
  type: "deit",
  className: "DeiT",
  tokens: ["cls_token", "distillation_token"],
});
