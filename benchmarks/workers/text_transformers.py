"""The same by Hugging Face's transformers, in PyTorch on the CPU: a Llama of the same shape."""

from typing import Any

from benchmarks.workers.common import TEXT, measure_text


def build() -> tuple[Any, Any, Any]:
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import LlamaConfig, LlamaForCausalLM  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    batch, prompt, response = TEXT["batch_size"], TEXT["prompt"], TEXT["response"]
    config = LlamaConfig(
        vocab_size=TEXT["vocabulary"],
        hidden_size=TEXT["width"],
        intermediate_size=TEXT["hidden"],
        num_hidden_layers=TEXT["layers"],
        num_attention_heads=TEXT["heads"],
        num_key_value_heads=TEXT["heads"],
        max_position_embeddings=prompt + response,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    tokens = torch.randint(1, TEXT["vocabulary"], (batch, prompt + response))
    optimizer = torch.optim.Adam(model.parameters(), lr=TEXT["learning_rate"])
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": response, "min_new_tokens": response}

    def sampling(seed: int) -> int:
        model.eval()
        with torch.inference_mode():
            prompts = tokens[:, :prompt]
            written = model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
        return written[:, prompt:].numel()

    def training(seed: int) -> float:
        model.train()
        optimizer.zero_grad()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return sum(parameter.numel() for parameter in model.parameters()), sampling, training


if __name__ == "__main__":
    measure_text(build)
