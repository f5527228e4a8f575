import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from "node:crypto";
import { signatureHeaders, signedText } from "./protocol.ts";

/** An Ed25519 key pair of a client. */
export interface ClientKey {
  readonly privateKey: KeyObject;
  /** 32 bytes in base64url. */
  readonly publicKey: string;
}

/** A new key pair from the system's generator. */
export function newClientKey(): ClientKey {
  return withPublicKey(generateKeyPairSync("ed25519").privateKey);
}

/** The key pair of a private key in PEM. */
export function readClientKey(pem: string): ClientKey {
  return withPublicKey(createPrivateKey(pem));
}

/** The private key in PEM (PKCS #8), for a file that only its owner may read. */
export function clientKeyPem({ privateKey }: ClientKey): string {
  return String(privateKey.export({ type: "pkcs8", format: "pem" }));
}

/** The key that verifies what the owner of a public key signs. */
export function verifyingKey(publicKey: string): KeyObject {
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: publicKey }, format: "jwk" });
}

/** What is signed beside the body. */
export interface SignedRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** SHA-256 of the body. */
  readonly body: string;
  readonly client: string;
}

/** The headers that sign a request at a time of the server's clock. */
export function signatureOf(
  request: SignedRequest,
  { privateKey }: ClientKey,
  serverTime: number,
): Record<string, string> {
  const time = String(Math.round(serverTime));
  const nonce = randomBytes(16).toString("base64url");
  const text = signedText({ ...request, time, nonce });
  return {
    [signatureHeaders.client]: request.client,
    [signatureHeaders.time]: time,
    [signatureHeaders.nonce]: nonce,
    [signatureHeaders.signature]: sign(null, Buffer.from(text), privateKey).toString("base64url"),
  };
}

/** Whether the owner of the key signed the request. */
export function isSignedBy(
  key: KeyObject,
  request: SignedRequest & { readonly time: string; readonly nonce: string },
  signature: string,
): boolean {
  return verify(null, Buffer.from(signedText(request)), key, Buffer.from(signature, "base64url"));
}

/** SHA-256 in hexadecimal of a body, whole or in pieces. */
export function bodyDigest(body: Uint8Array | string | readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const piece of Array.isArray(body) ? body : [body]) hash.update(piece);
  return hash.digest("hex");
}

function withPublicKey(privateKey: KeyObject): ClientKey {
  const { x = "" } = createPublicKey(privateKey).export({ format: "jwk" });
  return { privateKey, publicKey: x };
}
