"""The examples of the document on Reformer (spec 003), on checkpoints made here under the names that it uses."""

import io

import pytest
import sentencepiece
import torch

from modelwright import (
    AutoTokenizer,
    ReformerConfig,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerModel,
    ReformerModelWithLMHead,
    ReformerTokenizer,
    ReformerTokenizerFast,
)

CRIME, TINY = "google/reformer-crime-and-punishment", "hf-internal-testing/tiny-random-reformer"
TEXTS = (
    "Hello, my dog is cute",
    "Who was Jim Henson? Jim Henson was a nice puppet",
    "The capital of France is Paris.",
    "This is a sentence from the training data",
)


@pytest.fixture(scope="module")
def spiece():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    return model.getvalue()


@pytest.fixture(autouse=True, params=[ReformerTokenizer, ReformerTokenizerFast])
def checkpoints(request, spiece, tmp_path, monkeypatch):
    """Folders with the names of the document, in the current one; weights are drawn anew for each test."""
    monkeypatch.chdir(tmp_path)
    for name, model_class in ((CRIME, ReformerModelWithLMHead), (TINY, ReformerForMaskedLM)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "spiece.model").write_bytes(spiece)
        tokenizer = request.param(folder / "spiece.model")
        config = ReformerConfig(
            attn_layers=["local", "lsh", "local", "lsh"], hidden_size=16, axial_pos_embds_dim=[4, 12], num_buckets=4,
            axial_pos_shape=[8, 16], max_position_embeddings=128, num_attention_heads=2, attention_head_size=8,
            feed_forward_size=32, local_attn_chunk_length=8, lsh_attn_chunk_length=8, vocab_size=len(tokenizer),
            is_decoder=name == CRIME,
        )  # fmt: skip
        model_class(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def test_configuration():
    model = ReformerModel(ReformerConfig())
    assert isinstance(model.config, ReformerConfig)
    assert [parameter.shape[-1] for parameter in model.embeddings.position_embeddings.parameters()] == [64, 192]


def test_hidden_states():
    tokenizer = AutoTokenizer.from_pretrained(CRIME)
    model = ReformerModel.from_pretrained(CRIME)
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    states = model(**inputs).last_hidden_state
    assert states.shape == (*inputs.input_ids.shape, 32)
    assert states.isfinite().all()


def test_language_model():
    tokenizer = AutoTokenizer.from_pretrained(CRIME)
    model = ReformerModelWithLMHead.from_pretrained(CRIME)
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    outputs = model(**inputs, labels=inputs["input_ids"])
    scores = outputs.logits[0, :-1].log_softmax(dim=-1)
    torch.testing.assert_close(outputs.loss, -scores.gather(1, inputs.input_ids[0, 1:, None]).mean())


def test_training_on_a_text_of_any_length():
    tokenizer = AutoTokenizer.from_pretrained(CRIME)
    model = ReformerModelWithLMHead.from_pretrained(CRIME).train()
    input_ids = tokenizer.encode(TEXTS[3], return_tensors="pt")
    assert input_ids.shape[1] % 8, "the document asks for a multiple of the chunk length; none is needed here"
    loss = model(input_ids, labels=input_ids)[0]
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_masked_language_model():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = ReformerForMaskedLM.from_pretrained(TINY)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    inputs = tokenizer("The capital of France is [MASK].", return_tensors="pt")
    model.resize_token_embeddings(new_num_tokens=model.config.vocab_size + 1)
    assert tokenizer.mask_token_id == model.config.vocab_size - 1 == len(tokenizer) - 1
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape == (*inputs.input_ids.shape, len(tokenizer))
    mask_token_index = (inputs.input_ids == tokenizer.mask_token_id)[0].nonzero(as_tuple=True)[0]
    assert len(mask_token_index) == 1
    assert isinstance(tokenizer.decode(logits[0, mask_token_index].argmax(axis=-1)), str)

    labels = tokenizer(TEXTS[2], return_tensors="pt")["input_ids"]
    labels = torch.where(inputs.input_ids == tokenizer.mask_token_id, labels[:, : inputs["input_ids"].shape[-1]], -100)
    with torch.no_grad():
        outputs = model(**inputs, labels=labels)
    wanted = labels[0, mask_token_index]
    expected = -outputs.logits[0, mask_token_index].log_softmax(dim=-1)[0, wanted]
    assert round(outputs.loss.item(), 2) == round(expected.item(), 2)


def test_sequence_classification():
    tokenizer = AutoTokenizer.from_pretrained(CRIME)
    model = ReformerForSequenceClassification.from_pretrained(CRIME)
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    assert model.config.id2label[logits.argmax().item()] in ("LABEL_0", "LABEL_1")
    num_labels = len(model.config.id2label)
    model = ReformerForSequenceClassification.from_pretrained(CRIME, num_labels=num_labels)
    output = model(**inputs, labels=torch.tensor(1))
    torch.testing.assert_close(output.loss, -output.logits[0].log_softmax(dim=-1)[1])


def test_question_answering():
    tokenizer = AutoTokenizer.from_pretrained(CRIME)
    model = ReformerForQuestionAnswering.from_pretrained(CRIME)
    inputs = tokenizer("Who was Jim Henson?", "Jim Henson was a nice puppet", return_tensors="pt")
    assert inputs.input_ids.shape[1] > 16
    with torch.no_grad():
        outputs = model(**inputs)
    start, end = outputs.start_logits.argmax(), outputs.end_logits.argmax()
    assert isinstance(tokenizer.decode(inputs.input_ids[0, start : end + 1]), str)
    outputs = model(**inputs, start_positions=torch.tensor([14]), end_positions=torch.tensor([15]))
    parts = [-each[0].log_softmax(dim=-1)[at] for each, at in ((outputs.start_logits, 14), (outputs.end_logits, 15))]
    torch.testing.assert_close(outputs.loss, sum(parts) / 2)
