from perimetry.activations.tiny import MERGES, SPECIAL, tiny_tokenizer


def test_the_tokenizer_knows_every_byte_some_merges_and_its_special_tokens():
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == 256 + len(SPECIAL) + len(MERGES)
    text = "the \U0001f600 caf\u00e9 \x00"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(" and the")["input_ids"]) == 2
    assert tokenizer("<|im_end|>")["input_ids"] == [4]
    assert tiny_tokenizer(bos=False).bos_token is None
