r"""Plain prompts: the template of models that bring none, as OPT, GPT-2 and other base models do.

    </s>Be kind.

    Person 1:
    Do you like tea?
    Person 2:
    I do, green tea most of all.</s>
    Person 1:
    …

A base model has read much text and no control tokens, so it is asked in text: a talk between two people, who
have the names that BlenderBot 3's prompts gave them, and the system prompt as a paragraph before it.

Words are tokenised apart from the template. Byte-level BPE has one token for a word behind a space and
another for the same word behind a newline: after "Person 2: " a reply would begin with a token that the model
never saw there, so words stand on lines of their own. The pieces then have the tokens that the whole text
would have.

A reply ends with the tokenizer's eos token, the one special token that every such model knows, so that it can
learn where to stop. A person's message ends with a newline: eos parts documents, and would part the question
from its answer. The bos token comes first where there is one.

Names are words: a person can write "Person 2:", but neither eos nor what is trained on, which spans decide.
"""

from transformers import PreTrainedTokenizerBase

from bb3x_ray.schemas.errors import UserError

PLAIN_TEMPLATE = (
    "{{ bos_token | default('', true) }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] | trim + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Person 1:\n' + message['content'] | trim + '\n' }}"
    "{% else %}{{ 'Person 2:\n' + message['content'] | trim + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Person 2:\n' }}{% endif %}"
)


def give_plain_prompts(tokenizer: PreTrainedTokenizerBase, source: str) -> bool:
    """Whether `tokenizer` had no chat template, and has the plain one now.

    Raises UserError, naming `source`, where it has no eos token either.
    """
    if tokenizer.chat_template is not None:
        return False
    if tokenizer.eos_token is None:
        raise UserError(
            f"{source}: its tokenizer has neither a chat template nor an eos token, so the model cannot "
            "learn where a reply ends; name an eos_token in its tokenizer_config.json."
        )
    tokenizer.chat_template = PLAIN_TEMPLATE
    return True
