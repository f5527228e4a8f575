"""Writes numbers.json: what Transformers computes for tiny models of families that need a reference.

    python test/models/reference/make.py && npx biome format --write test/models/reference

Needs torch, transformers and safetensors.

Weights come from a linear congruential generator over the sorted tensor names, so that no file has to hold them.
"""
import json, os, pathlib, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch, transformers
from safetensors.torch import load_file, save_file

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

IDS = [[3, 17, 9, 21, 5, 8, 26, 11, 2], [14, 2, 25, 7, 19, 4, 12, 22, 6]]
NEW_TOKENS = 12

GEMMA3 = dict(
    model_type="gemma3_text", vocab_size=29, hidden_size=12, intermediate_size=18, num_hidden_layers=4,
    num_attention_heads=3, num_key_value_heads=1, head_dim=6, max_position_embeddings=64, sliding_window=4,
    query_pre_attn_scalar=10, rms_norm_eps=1e-3, hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True,
)
PHI3 = dict(
    model_type="phi3", vocab_size=29, hidden_size=16, intermediate_size=14, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, rms_norm_eps=1e-3, hidden_act="silu", tie_word_embeddings=False, pad_token_id=0,
)
CASES = {
    "gemma3": ("Gemma3ForCausalLM", dict(
        GEMMA3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=500.0, factor=2.0),
            sliding_attention=dict(rope_type="default", rope_theta=50.0),
        ),
    )),
    "gemma3-pattern": ("Gemma3ForCausalLM", dict(
        GEMMA3, sliding_window_pattern=2, rope_theta=500.0, rope_local_base_freq=50.0, final_logit_softcapping=3.0,
    )),
    "phi3": ("Phi3ForCausalLM", dict(
        PHI3, max_position_embeddings=64, sliding_window=5, rope_theta=70.0, partial_rotary_factor=0.5,
    )),
    "phi3-longrope": ("Phi3ForCausalLM", dict(
        PHI3, max_position_embeddings=128, original_max_position_embeddings=32, partial_rotary_factor=0.75,
        rope_theta=70.0, rope_scaling=dict(type="longrope", short_factor=[1.0, 1.4, 2.5], long_factor=[2.0, 3.0, 4.0]),
    )),
    "deit": ("DeiTForImageClassification", dict(
        model_type="deit", hidden_size=12, intermediate_size=18, num_hidden_layers=2, num_attention_heads=3,
        hidden_act="gelu", layer_norm_eps=1e-3, image_size=9, patch_size=4, num_channels=2, qkv_bias=True, num_labels=3,
    )),
}


def numbers(seed):
    while True:
        seed = (1103515245 * seed + 12345) % 2**31
        yield seed / 2**31 - 0.5


def fill(shape, source, offset=0.0, scale=0.8):
    count = int(torch.tensor(shape).prod())
    return torch.tensor([offset + scale * next(source) for _ in range(count)], dtype=torch.float32).reshape(list(shape))


def build(architecture, config):
    """The model with generated weights, and the names of its parameters in its checkpoint."""
    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(**config))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        stored = load_file(f"{folder}/model.safetensors")
        source = numbers(1)
        weights = {}
        for name in sorted(stored):
            one = stored[name]
            weights[name] = fill(one.shape, source, 0.5 if one.ndim == 1 and name.endswith("weight") else 0.0)
        save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model = cls.from_pretrained(folder, attn_implementation="eager").double()
    names = {}
    for memory, parameter in model.named_parameters():
        [names[memory]] = [n for n, w in weights.items() if w.shape == parameter.shape and torch.equal(w.double(), parameter)]
    return model, names


def projections(model, names):
    """One number a tensor: the gradient's product with generated numbers."""
    source = numbers(2)
    by_file = {names[memory]: p for memory, p in model.named_parameters()}
    return {n: (by_file[n].grad * fill(by_file[n].shape, source).double()).sum().item() for n in sorted(by_file)}


def causal(model, names):
    ids = torch.tensor(IDS)
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    tokens, log_probs = list(IDS[0][:4]), []
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            last = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)
            tokens.append(last.argmax().item())
            log_probs.append(last.max().item())
    return dict(logits=out.logits[:, -2:].flatten().tolist(), loss=out.loss.item(), gradients=projections(model, names),
                greedy=tokens[4:], logProbs=log_probs)


def images(model, names):
    c = model.config
    pixels = fill((2, c.num_channels, c.image_size, c.image_size), numbers(3), scale=2.0).double()
    out = model(pixel_values=pixels, labels=torch.tensor([2, 0]))
    out.loss.backward()
    return dict(logits=out.logits.flatten().tolist(), loss=out.loss.item(), gradients=projections(model, names))


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    results = {}
    for name, (architecture, config) in CASES.items():
        model, names = build(architecture, dict(config))
        run = images if "image_size" in config else causal
        results[name] = dict(config=dict(config, architectures=[architecture]), **rounded(run(model, names)))
    document = dict(transformers=transformers.__version__, ids=IDS, cases=results)
    text = json.dumps(document, indent=1)
    pathlib.Path(__file__).with_name("numbers.json").write_text(text + "\n")
