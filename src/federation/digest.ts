/** SHA-256 in lower-case hexadecimal. */
export type Digest = string;

const pattern = /^[0-9a-f]{64}$/;

/** The SHA-256 of some bytes, by the platform's WebCrypto. */
export async function sha256(bytes: Uint8Array): Promise<Digest> {
  // WebCrypto refuses views of shared memory by type; nothing here is shared between threads.
  return hex(await globalThis.crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
}

/** The SHA-256 of a text in UTF-8. */
export function sha256Text(text: string): Promise<Digest> {
  return sha256(new TextEncoder().encode(text));
}

/** Whether a text can be a digest: what is not one never becomes part of a path. */
export function isDigest(text: string): boolean {
  return pattern.test(text);
}

function hex(buffer: ArrayBuffer): string {
  let text = "";
  for (const byte of new Uint8Array(buffer)) text += byte.toString(16).padStart(2, "0");
  return text;
}
