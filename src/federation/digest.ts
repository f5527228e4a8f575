/** SHA-256 in lower-case hexadecimal. */
export type Digest = string;

/** SHA-256 of the concatenation of some pieces. An `Env` brings the fastest that its platform has. */
export type Hash = (pieces: readonly Uint8Array[]) => Digest | Promise<Digest>;

const pattern = /^[0-9a-f]{64}$/;

/** SHA-256 by WebCrypto, which takes its input whole, copies it before it returns and hashes on a thread of its own. */
export async function webHash(pieces: readonly Uint8Array[]): Promise<Digest> {
  const [only] = pieces;
  const bytes = pieces.length === 1 && only ? only : joined(pieces);
  // WebCrypto refuses views of shared memory by type; nothing here is shared between threads.
  return hex(await globalThis.crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
}

/** The SHA-256 of some bytes. */
export async function sha256(bytes: Uint8Array, hash: Hash = webHash): Promise<Digest> {
  return hash([bytes]);
}

/** The SHA-256 of a text in UTF-8. */
export function sha256Text(text: string, hash: Hash = webHash): Promise<Digest> {
  return sha256(new TextEncoder().encode(text), hash);
}

/** Whether a text can be a digest: what is not one never becomes part of a path. */
export function isDigest(text: string): boolean {
  return pattern.test(text);
}

/** The pieces one after the other. */
export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function hex(buffer: ArrayBuffer): string {
  let text = "";
  for (const byte of new Uint8Array(buffer)) text += byte.toString(16).padStart(2, "0");
  return text;
}
