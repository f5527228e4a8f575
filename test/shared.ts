import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../../shared", import.meta.url));

/** The reference material beside the checkout, or undefined where there is none: tests that need it skip. */
export const shared: string | undefined = existsSync(`${folder}/goldens`) ? folder : undefined;
